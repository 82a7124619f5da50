"""Every public function and class has an example in its docstring; `tests/test_docstrings.py` runs them."""

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


class Told:
    '''Example:

        Told()
    '''
"""


def test_every_public_name_has_an_example() -> None:
    assert COVERAGE["lacking"](ROOT / "share_jax") == [], "write an example that runs into the docstring"


def test_an_example_is_one_that_runs_in_a_function_or_a_method(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    names = ("bare", "shown", "Bare", "Shown", "Told")
    (room / "__init__.pyi").write_text("\n".join(f"from .file import {name} as {name}" for name in names))
    (room / "file.py").write_text(MODULE)
    assert COVERAGE["lacking"](tmp_path) == ["room.bare", "room.Bare", "room.Told"]
