"""What the pages name is in the checkout: files and folders, targets of make, modules and rooms."""

import re

import pytest
from pages import PAGES, ROOT

ALSO = ("CONTRIBUTING.md", "SECURITY.md")
TEXTS = {**PAGES, **{name: (ROOT / name).read_text(encoding="utf-8") for name in ALSO}}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PLACE = re.compile(r"(?<![\w/.])((?:share_jax|experiments|tests|docs|colab)/[\w./-]*\w)")


def named_code(text: str) -> str:
    """What stands between backticks or in a block of code."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])


@pytest.mark.parametrize("page", TEXTS)
def test_files_targets_and_modules_that_a_page_names_are_there(page: str) -> None:
    code = named_code(TEXTS[page])
    for place in PLACE.findall(code):
        assert (ROOT / place).exists(), place
    for target in re.findall(r"(?:^|`|\s)make ([a-z][a-z-]*)(?=\s|$)", code, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for module in re.findall(r"python -m (experiments[\w.]*\w)", code):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_architecture_has_every_room_and_every_file_beside_them() -> None:
    text = TEXTS["docs/contributing/architecture.md"]
    tree, rest = text.split("## Where a change goes")[0].split("Beside the rooms:")
    rows = re.findall(r"^\| (`.*?) \|", tree, re.MULTILINE)
    package = ROOT / "share_jax"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == rooms
    for name in re.findall(r"`(\w+\.py)`", rest):
        assert (package / name).exists(), name


def test_make_help_lists_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(re.findall(r"^([a-z-]+):.*## .", MAKEFILE, re.MULTILINE)) == set(phony.split())
