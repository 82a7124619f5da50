"""Which public names lack an example in their docstring: a list that only gets shorter."""

import runpy
from pathlib import Path

from pages import ROOT

COVERAGE = runpy.run_path(str(ROOT / "docs" / "coverage.py"))
MODULE = """
def bare():
    'Nothing.'


def shown():
    '''
    >>> shown()
    '''


class Bare:
    'Nothing.'

    def _hidden(self):
        '>>> 1'


class Shown:
    'In a method.'

    def one(self):
        '>>> 1'
"""
MISSING = ROOT / "docs" / "examples_missing.txt"


def test_a_new_public_name_has_an_example_and_the_list_of_the_others_is_right() -> None:
    known = set(MISSING.read_text(encoding="utf-8").split())
    lacking = set(COVERAGE["lacking"](ROOT / "share_jax"))
    assert lacking - known == set(), "write an example that runs into the docstring"
    assert known - lacking == set(), f"these have one now: take them out of {MISSING.name}"


def test_an_example_is_found_in_a_function_a_method_and_a_file(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    names = ("bare", "shown", "Bare", "Shown")
    (room / "__init__.pyi").write_text("\n".join(f"from .file import {name} as {name}" for name in names))
    (room / "file.py").write_text(MODULE)
    assert COVERAGE["lacking"](tmp_path) == ["room.bare", "room.Bare"]
