"""Blocks of code in the README and on the pages of the documentation, by the comment that stands before each."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
"""The text of every page that is written by hand, by its path in the checkout."""
MARKED = re.compile(r"<!-- ([\w ]+) -->\n```(python|sh)\n(.*?)```", re.DOTALL)


def block(page: str, name: str) -> str:
    """The one block of a page that has this name."""
    (found,) = [text for called, _, text in MARKED.findall(PAGES[page]) if called == name]
    return found


def code_lines(source: str) -> int:
    """How many lines of a block hold something."""
    return len([text for text in source.splitlines() if text.strip()])
