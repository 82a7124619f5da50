"""The notebooks run from their first cell to their last, hold no outputs and no method of their own."""

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
SAID = {
    "quickstart": [
        "every bit of the first task's logits as before: True",
        "every bit of the first task's logits after loading: True",
        "Running on CPU",
    ],
    "ten_tasks": ["report.html", "Running on CPU"],
    "language_model": [
        "older tasks unchanged: {'SQL': True, 'pandas': True}",
        "is what it was: True",
        "adapter_config",
    ],
    "compress_adapters": ["proven", "every checksum and tensor of the set is in order", "adapter_config.json"],
}
"""What a run prints, by notebook."""
RUN = dict.fromkeys(("language_model", "ten_tasks", "compress_adapters"), pytest.mark.slow)
"""Marks of those that take long even in small."""
CHECKOUT = {"ten_tasks", "language_model"}
"""Those that use `experiments`, which the package does not hold."""


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def sources(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def test_all_four_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SAID)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in read(path).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not cell.metadata


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_import_and_call(path: Path) -> None:
    """No class, no gradient, no training step: what a method does is in the library."""
    for source in sources(path):
        tree = ast.parse(source)
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
        assert not re.search(r"\b(grad|value_and_grad|vjp|svd|qr|einsum)\(", source)
        assert len(source.splitlines()) <= 25


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_what_installs_a_checkout_uses_experiments_and_all_use_public_names(path: Path) -> None:
    cells = "\n".join(sources(path)[1:])
    assert bool(re.search(r"\bexperiments\b", cells)) == (path.stem in CHECKOUT)
    assert not re.search(r"(from|import) share_jax\.", cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_texts_hold_no_figures_that_a_run_would_have_to_prove(path: Path) -> None:
    text = " ".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert not re.search(r"\d[\d.]* ?(% (?!noise)|points|times|ms|MB|GB)|\d\.\d", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_begins_with_what_one_learns_and_a_time_draws_a_plot_and_ends_with_what_comes_next(path: Path) -> None:
    cells = read(path).cells
    begin, end = cells[0], cells[-1]
    assert begin.cell_type == end.cell_type == "markdown"
    assert re.search(r"You see .+ minutes? on .*CPU|You see .+ minute; a CPU is enough", begin.source)
    assert any(re.search(r"plt\.show\(\)|display\(Image\(", source) for source in sources(path))
    assert end.source.startswith("## Where to go from here\n")
    notebooks = re.findall(r"`(\w+\.ipynb)`", end.source)
    pages = re.findall(r"`(docs/[\w/-]+\.md)`", end.source)
    assert set(notebooks) - {path.name}
    assert all((ROOT / "colab" / name).exists() for name in notebooks)
    assert all((ROOT / name).exists() for name in pages)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_have_the_same_first_cells_and_the_badge_opens_what_is_there(path: Path) -> None:
    """While the project names no repository, the badge may name none; once it does, it has to name the file there."""
    first = 1 if path.stem in CHECKOUT else 0  # what runs from a checkout installs that
    assert sources(path)[first:2] == sources(NOTEBOOKS[0])[first:2]
    intro = read(path).cells[0].source
    (link,) = re.findall(r"colab-badge\.svg\)\]\(([^)]+)\)", intro)
    assert f"colab/{path.name}" in intro
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    repository = urls.get("Repository", "").removeprefix("https://github.com/").removesuffix(".git")
    base = "https://colab.research.google.com/github/"
    assert link == (f"{base}{repository}/blob/main/colab/{path.name}" if repository else base)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of zmq and its event loop
@pytest.mark.parametrize("path", [pytest.param(path, marks=RUN.get(path.stem, ()), id=path.stem) for path in NOTEBOOKS])
def test_a_notebook_runs_from_the_first_cell_to_the_last(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    for name, value in (("SHARE_JAX_SMALL", "1"), ("PYTHONPATH", str(ROOT))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # plots go into the notebook
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    (tmp_path / "work").mkdir()
    notebook = read(path)
    where = {"metadata": {"path": str(tmp_path / "work")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    printed = "".join(out.text for out in outputs if out.output_type == "stream" and out.name == "stdout")
    for words in SAID[path.stem]:
        assert words in printed
    for page in (tmp_path / "work").rglob("report.html"):  # what merging cost: share is among the methods
        assert "Error of each task" in page.read_text()
    images = sum("image/png" in out.get("data", {}) for out in outputs)
    assert images == {"quickstart": 1, "ten_tasks": 2, "language_model": 1, "compress_adapters": 1}[path.stem]
