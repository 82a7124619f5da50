"""What `pip install` brings: the package alone, with its stubs, and the dependencies that it imports."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import share_jax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"orbax-checkpoint": "orbax"}
"""Distributions whose module has another name."""
EXTRAS = {
    "share_jax/models/": "models",
    "share_jax/formats/gguf_tensors.py": "models",
    "share_jax/cli/heatmap.py": "plots",
    "share_jax/cli/error_plot.py": "plots",
}
"""The extra that a part of the package may import."""
SCRIPT = """
import flax.linen as nn, jax, optax, share_jax

model, x = nn.Dense(2), jax.numpy.ones((4, 3))
params = model.init(jax.random.key(0), x)["params"]
adapted = share_jax.adapt(model, {"params": params}, x, targets=["kernel"], method=share_jax.SharedA(rank=1))
learner = share_jax.Learner(adapted, {"params": params}, optax.sgd(0.1))
bank = learner.start(adapted.init(jax.random.key(1), params, num_tasks=1))
bank = learner.learn(bank, "only", [{"inputs": x, "labels": jax.numpy.zeros(4, int)}] * 2)
print(share_jax.__file__, bank.names)
"""
"""A user's ten lines."""


def modules_of(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=;~! ]", text)[0] for text in requirements}
    return {MODULES.get(name, name) for name in names}


def imported_by(path: Path) -> set[str]:
    """The top-level modules that a file imports, anywhere in it, but its own and those of Python itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"share_jax"}


def test_the_package_needs_what_it_imports_and_nothing_else() -> None:
    runtime = modules_of(PROJECT["dependencies"])
    used = set()
    for path in (ROOT / "share_jax").rglob("*.py"):
        name, imported = path.relative_to(ROOT).as_posix(), imported_by(path)
        extras = [PROJECT["optional-dependencies"][extra] for part, extra in EXTRAS.items() if name.startswith(part)]
        assert imported <= runtime.union(*map(modules_of, extras)), name
        used |= imported
    assert runtime <= used
    assert modules_of(PROJECT["optional-dependencies"]["models"]) <= used


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", text)[0].lower().replace("_", "-") for text in requirements}


def locked(path: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)(?:\[.*\])?==([\w.]+)", (ROOT / path).read_text(), re.MULTILINE))


def test_every_requirement_is_locked() -> None:
    extras = dict(PROJECT["optional-dependencies"])
    docs = names_of(extras.pop("docs"))
    every = names_of([*PROJECT["dependencies"], *(text for texts in extras.values() for text in texts)])
    assert every - set(locked("requirements.lock")) == {"share-jax", "tensorflow-cpu"}
    assert docs <= set(locked("docs/requirements.lock"))


def test_both_locks_have_the_same_versions() -> None:
    """So that the tools of the documentation change nothing of the environment that is there."""
    first, second = (
        set(re.findall(r"^([\w-]+(?:\[.*\])?==[\w.]+)", (ROOT / path).read_text(), re.MULTILINE))
        for path in ("requirements.lock", "docs/requirements.lock")
    )
    both = {text.split("==")[0] for text in first} & {text.split("==")[0] for text in second}
    assert {text for text in second if text.split("==")[0] in both} <= first


def test_the_version_stands_in_one_place_and_what_repeats_it_agrees() -> None:
    assert "version" in PROJECT["dynamic"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited
    assert cited[1] == share_jax.__version__


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution of a checkout, built without a network."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "built"))
    for name in ("share_jax", "experiments", "tests", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import setuptools.build_meta as b, sys; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
    done = subprocess.run([sys.executable, "-c", build, folder], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_the_package_alone_whole_typed_and_described(built: Path) -> None:
    (path,) = built.glob("*.whl")
    information = f"share_jax-{share_jax.__version__}.dist-info"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        told = HeaderParser().parsestr(archive.read(f"{information}/METADATA").decode())
    assert {name.split("/")[0] for name in names} == {"share_jax", information}
    suffixes = (".py", ".pyi", ".typed")
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "share_jax").rglob("*") if path.suffix in suffixes}
    assert {name for name in names if name.startswith("share_jax/")} == here | {"share_jax/py.typed"}
    assert told["Version"] == share_jax.__version__
    assert {"models", "experiments", "tensorflow", "docs"} <= set(told.get_all("Provides-Extra") or ())
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in (told.get_all("Classifier") or ())


def test_the_source_distribution_has_what_a_build_needs(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "share_jax/__init__.pyi", "share_jax/py.typed"} <= names


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_runs_where_it_is_installed_outside_of_the_checkout(built: Path, tmp_path: Path, kind: str) -> None:
    """In an environment of its own that has the dependencies of this one, so that nothing is downloaded."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    (path,) = built.glob(kind)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*words: object) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dependencies = Path(next(place for place in sys.path if (Path(place) / "jax" / "__init__.py").exists()))
    (site / "dependencies.pth").write_text(str(dependencies))
    run(
        python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"
    )  # Python 3.11's own is too old to build with
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", "--no-build-isolation", path)
    assert str(site) in run(python, "-c", SCRIPT)
    assert run(tmp_path / "env" / "bin" / "share-jax", "--version") == f"share-jax {share_jax.__version__}\n"
