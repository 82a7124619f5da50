"""Pages of the site that are written elsewhere: the reference from the stubs, results, changelog and notebooks.

MkDocs calls the functions named `on_...`. Nothing of the package is imported: names come from the stubs, texts from the
files.
"""

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "share_jax"
sys.path.insert(0, str(ROOT / "docs"))
import write_public  # noqa: E402  (docs is no package)

COPIED = {
    "benchmarks/results.md": "experiments/RESULTS.md",
    "benchmarks/speed.md": "experiments/BENCH.md",
    "benchmarks/saturation.md": "experiments/studies/saturation/SATURATION.md",
    "benchmarks/scaling.md": "experiments/studies/scaling/SCALING.md",
    "benchmarks/alternatives.md": "experiments/studies/alternatives/ALTERNATIVES.md",
    "benchmarks/choices.md": "experiments/CHOICES.md",
    "benchmarks/tpu.md": "experiments/tpu.md",
    "benchmarks/language.md": "experiments/streams/language.md",
    "benchmarks/tfds.md": "experiments/streams/tfds.md",
    "contributing/index.md": "CONTRIBUTING.md",
    "contributing/security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site that are a file of the checkout, as it stands; pictures beside them come along."""
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)\n*")
NOTEBOOK = re.compile(r"`(\w+)\.ipynb`")
PAGE = re.compile(r"`docs/([\w/-]+\.md)`")
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Adds a page for each room to the reference."""
    (reference,) = (section["Reference"] for section in config.nav if "Reference" in section)
    reference.extend(f"reference/{name}.md" for name in _names_by_page())
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are written elsewhere."""
    for name, names in _names_by_page().items():
        files.append(File.generated(config, f"reference/{name}.md", content=_reference(name, names)))
    for page, source in COPIED.items():
        path = ROOT / source
        files.append(File.generated(config, page, content=path.read_text(encoding="utf-8")))
        for picture in re.findall(r"\]\(([\w-]+\.svg)\)", path.read_text(encoding="utf-8")):
            place = str(Path(page).with_name(picture))
            files.append(File.generated(config, place, abs_src_path=str(path.with_name(picture))))
    for path in sorted((ROOT / "colab").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=_notebook(path)))
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links every name of the list of public names to its place in the reference."""
    if page.file.src_uri != write_public.PAGE.name:
        return markdown
    head, *parts = re.split(r"^(?=## )", markdown, flags=re.MULTILINE)
    return head + "".join(_linked(part, part.split()[1]) for part in parts)


def _names_by_page() -> dict[str, list[str]]:
    """The full names on each page of the reference: those of a room, of a module, and what is in neither."""
    pages: dict[str, list[str]] = {}
    for name, file in write_public.stub_names(PACKAGE):
        room = PACKAGE / name
        if (room / "__init__.pyi").exists():
            pages[name] = [f"share_jax.{name}.{each}" for each, _ in write_public.stub_names(room)]
        elif file == room.with_suffix(".py"):
            pages[name] = [f"share_jax.{name}"]
    placed = {name.rpartition(".")[2] for names in pages.values() for name in names} | set(pages)
    alone = [f"share_jax.{name}" for name, _ in write_public.stub_names(PACKAGE) if name not in placed]
    return dict(sorted({**pages, **({"share_jax": alone} if alone else {})}.items()))


def _reference(page: str, names: list[str]) -> str:
    in_no_room = page == PACKAGE.name
    title, folder = (page, PACKAGE) if in_no_room else (f"share_jax.{page}", PACKAGE / page)
    about = "" if names == [title] else write_public.about(folder) + ".\n\n"
    return f"# {title}\n\n{about}" + "\n\n".join(f"::: {name}" for name in names) + "\n"


def _linked(part: str, where: str) -> str:
    """A section of the list of public names with its names as links."""
    pages = _names_by_page()
    homes = {name.rpartition(".")[2]: name for names in pages.values() for name in names}

    def link(row: re.Match[str]) -> str:
        name = row[1]
        if where == "share_jax" and name in pages:
            return f"| [`{name}`](reference/{name}.md) |"
        return f"| [`{name}`][{homes[name] if where == 'share_jax' else f'{where}.{name}'}] |"

    return ROW.sub(link, part)


def _notebook(path: Path) -> str:
    """A notebook as a page: its texts and its code, with a link to the file."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(_text(cell.source) if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
    return "\n\n".join([parts[0], f"[Download this notebook]({path.name})", *parts[1:]]) + "\n"


def _text(source: str) -> str:
    """A cell's text without its badge; the notebooks and pages that it names become links."""
    linked = NOTEBOOK.sub(r"[`\1.ipynb`](\1.md)", BADGE.sub("", source))
    return PAGE.sub(r"[\1](../\1)", linked)
