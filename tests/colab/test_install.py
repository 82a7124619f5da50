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
import share_jax, share_jax.train
print(Path(share_jax.__file__).parents[1], importlib.util.find_spec("experiments") is not None)
"""


def install_cell(notebook: str) -> str:
    cells = nbformat.read(ROOT / "colab" / f"{notebook}.ipynb", as_version=4).cells
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
@pytest.mark.parametrize(
    ("notebook", "source"), [("quickstart", "clone"), ("quickstart", "package"), ("ten_tasks", "clone")]
)
def test_the_install_cell_makes_what_the_notebook_uses_importable_at_once(
    tmp_path: Path, clone: Path, notebook: str, source: str
) -> None:
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
        words = [python, "-c", install_cell(notebook) + WHERE]
        run = subprocess.run(words, cwd=begin, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found, has_experiments = run.stdout.split()
        assert Path(found) == clone if source == "clone" else "site-packages" in found
        if notebook == "ten_tasks":  # the quickstart uses the package alone
            assert has_experiments == "True"


@pytest.mark.parametrize("address", ["", "given"])
def test_ten_tasks_alone_asks_for_a_repository_and_clones_it(tmp_path: Path, address: str) -> None:
    """Without a network: git and pip are stand-ins that write down what they were called with."""
    words = install_cell("ten_tasks").replace('REPOSITORY = ""', f'REPOSITORY = "{address}"')
    assert f'REPOSITORY = "{address}"' in words
    stand_in = "import subprocess\nsubprocess.run = lambda words, check: print(*words)\n"
    blind = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    run = subprocess.run([sys.executable, "-c", stand_in + blind + words], cwd=tmp_path, capture_output=True, text=True)
    if not address:
        assert run.returncode == 1
        assert "set REPOSITORY" in run.stderr
        assert run.stdout == ""
    else:
        assert run.returncode == 0, run.stderr
        clone, install = run.stdout.splitlines()
        assert clone == f"git clone --quiet --depth 1 given {tmp_path / 'repository'}"
        assert install.endswith(f"--editable {tmp_path / 'repository'}[experiments]")
