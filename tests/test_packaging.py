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
EXTRAS = {"models": "share_jax/models/", "plots": "share_jax/cli/heatmap.py"}
"""The extras that a part of the package may import."""


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
        extras = [PROJECT["optional-dependencies"][extra] for extra, part in EXTRAS.items() if name.startswith(part)]
        assert imported <= runtime.union(*map(modules_of, extras)), name
        used |= imported
    assert runtime <= used
    assert modules_of(PROJECT["optional-dependencies"]["models"]) <= used


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
