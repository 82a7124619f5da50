"""The notebooks' install cell in an empty environment: from a clone, and as from a package index."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
WHERE = """
import experiments, share_jax
print(*(Path(package.__file__).parents[1] for package in (experiments, share_jax)))
"""


def install_cell() -> str:
    cells = nbformat.read(ROOT / "colab" / "quickstart.ipynb", as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone has, without what was built in this one."""
    folder = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("share_jax", "experiments", "colab"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("source", ["clone", "package"])
def test_the_install_cell_makes_both_packages_importable_at_once(tmp_path: Path, clone: Path, source: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    begin = clone / "colab"
    if source == "package":  # a folder of packages stands for the index
        begin = tmp_path / "elsewhere"
        begin.mkdir()
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", clone]
        subprocess.run(build, check=True)
        environment["PIP_FIND_LINKS"] = str(tmp_path / "dist")
    for _ in ("installs", "finds it installed"):
        words = [python, "-c", install_cell() + WHERE]
        run = subprocess.run(words, cwd=begin, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert len(run.stdout.split()) == 2
        for found in run.stdout.split():
            assert Path(found) == clone if source == "clone" else "site-packages" in found
