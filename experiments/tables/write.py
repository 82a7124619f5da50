"""The results page: one block per table, each replaced on its own."""

from pathlib import Path

from experiments.report.explain import HOW_TO_READ
from experiments.tables.entries import TABLES
from experiments.tables.markers import between, replaced
from experiments.tables.page import TITLES, Section, render
from share_jax.errors import InputError, message
from share_jax.storage.atomic_write import replace_text

INTRODUCTION = (
    "# Results\n\nWritten by `python -m experiments.tables`: each table's section is made from the `results.json` of "
    "its runs, and replaced as a whole by the command that stands at its head."
)


def block_of(table: str) -> str:
    """The name of a table's block on the page."""
    return f"results:{table}"


def check_page(page: Path, table: str) -> None:
    """Makes sure that the section of a table can be written, before anything is run for it.

    Raises:
        FormatError: the page is there without the table's markers.
        InputError: the page is a folder.
    """
    replaced(_read(page), block_of(table), "", str(page))


def write_section(page: Path, section: Section) -> None:
    """Replaces a table's section of the page, which is made if it is not there.

    Raises:
        FormatError: the page is there without the table's markers.
        InputError: the page is a folder.
    """
    text = replaced(_read(page), block_of(section.table), render(section), str(page))
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_text(text, page)


def _read(page: Path) -> str:
    if page.is_dir():
        raise InputError(message(f"--page {page}", got="a folder", expected="a file", fix="add the file's name"))
    return page.read_text(encoding="utf-8") if page.exists() else _empty()


def _empty() -> str:
    """The page before any table was made."""
    blocks = [between(block_of(table), f"## {TITLES[table]}\n\nNot run yet.") for table in TABLES]
    return "\n\n".join((INTRODUCTION, *blocks, "## How to read the measures", HOW_TO_READ)) + "\n"
