"""What `pip install` brings: the package alone, with its stubs, and the dependencies that it imports."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"orbax-checkpoint": "orbax"}
"""Distributions whose module has another name."""
EXTRA_OF = {"models": "share_jax/models/"}
"""The extras that a part of the package needs."""


def modules_of(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=;~! ]", text)[0] for text in requirements}
    return {MODULES.get(name, name) for name in names}


def imported_by(folder: str, without: tuple[str, ...] = ()) -> set[str]:
    """The top-level modules that the files below a folder import, anywhere in them, but those of Python itself."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        if path.relative_to(ROOT).as_posix().startswith(without or ("-",)):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"share_jax"}


def test_the_package_needs_what_it_imports_and_nothing_else() -> None:
    runtime = modules_of(PROJECT["dependencies"])
    assert imported_by("share_jax", tuple(EXTRA_OF.values())) == runtime
    for extra, folder in EXTRA_OF.items():
        assert imported_by(folder) - runtime == modules_of(PROJECT["optional-dependencies"][extra])


def test_every_requirement_is_locked() -> None:
    every = [*PROJECT["dependencies"], *(text for texts in PROJECT["optional-dependencies"].values() for text in texts)]
    locked = set(re.findall(r"^([\w-]+)(?:\[.*\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    names = {re.split(r"[\[<>=;~! ]", text)[0].lower().replace("_", "-") for text in every}
    assert names - locked == {"share-jax", "tensorflow-cpu"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in the wheel of a checkout, built without a network."""
    source, built = (tmp_path_factory.mktemp(name) for name in ("source", "built"))
    for name in ("share_jax", "experiments", "tests", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import setuptools.build_meta as backend, sys; print(backend.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, built], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_package_alone_whole_and_typed(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel} == {"share_jax", "share_jax-0.1.0.dist-info"}
    files = {name for name in wheel if name.startswith("share_jax/")}
    suffixes = (".py", ".pyi", ".typed")
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "share_jax").rglob("*") if path.suffix in suffixes}
    here |= {"share_jax/py.typed"}
    assert files == here
