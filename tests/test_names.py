"""What is public: one list per folder, loaded when it is first used, and the page that says so."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import share_jax

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path.parent.name for path in (ROOT / "share_jax").glob("*/__init__.pyi"))


WRITER = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "write_public.py")))


def run(code: str) -> str:
    """What a fresh interpreter prints, in which nothing has been loaded."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_need_no_import_of_their_own_whatever_was_used_before() -> None:
    """One interpreter for all beginnings, which forgets the library before each; what it rests on loads once."""
    names = (
        "runtime.keep_freed",
        "storage.hold",
        "subspace.merge",
        "bank.TaskBank",
        "linen.Adapted",
        "formats.open_sources",
        "linalg.orthonormal",
        "metrics",
        "errors.message",
    )
    lines = "\n".join(f"share_jax.{name}" for name in names)
    forget = "for name in [name for name in sys.modules if name.startswith('share_jax')]: del sys.modules[name]"
    beginnings = ("", "share_jax.Learner", "share_jax.SharedA()")
    code = "\n".join(f"{forget}\nimport share_jax\n{first}\n{lines}\nprint('all')" for first in beginnings)
    assert run(f"import sys\n{code}") == "all\n" * 3


def test_what_is_not_asked_for_is_not_loaded() -> None:
    loaded = "print('jax' in sys.modules, 'share_jax.train' in sys.modules)"
    assert run(f"import share_jax, sys; share_jax.runtime.keep_freed; {loaded}") == "False False\n"
    assert run("import share_jax, sys; share_jax.train; print('optax' in sys.modules)") == "False\n"


def test_every_name_of_the_stubs_is_there_and_dir_lists_them_alone() -> None:
    for package in (share_jax, *(getattr(share_jax, room) for room in ROOMS)):
        names = [name for name, _ in WRITER.stub_names(Path(package.__file__).parent)]
        assert len(names) == len(set(names))
        assert sorted(package.__all__) == sorted(dir(package)) == sorted(names)
        for name in names:
            assert getattr(package, name) is not None, name
    assert share_jax.LossSums is importlib.import_module("share_jax.train.losses").LossSums


def test_every_room_has_a_list_and_says_what_is_in_it() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "share_jax").glob("*/__init__.py"))
    assert folders == sorted([*ROOMS, "cli"])
    assert set(ROOMS) < set(share_jax.__all__)
    for room in folders:
        text = (importlib.import_module(f"share_jax.{room}").__doc__ or "").strip()
        assert 4 <= len(text.splitlines()) <= 16, room
        files = {path.stem for path in (ROOT / "share_jax" / room).glob("*.py") if path.stem[0] != "_"}
        unnamed = {name for name in files if f"`{name}`" not in text}
        assert not unnamed or room == "cli", (room, unnamed)  # a command's file is named after it


@pytest.mark.parametrize("room", ROOMS)
def test_no_public_name_is_a_modules_of_its_room(room: str) -> None:
    """Otherwise `share_jax.room.name` and `import share_jax.room.name` were two things."""
    modules = {path.stem for path in (ROOT / "share_jax" / room).glob("*.py")}
    assert modules & set(getattr(share_jax, room).__all__) == set()


def test_the_page_lists_the_names_of_the_stubs_with_their_docstrings() -> None:
    """After a change of public names or their docstrings: python docs/write_public.py."""
    assert WRITER.PAGE.read_text(encoding="utf-8") == WRITER.page(), "run python docs/write_public.py"
    assert "|  |" not in WRITER.page(), "a public name has no docstring"


@pytest.mark.parametrize("name", ["nothing", "Nothing", "_nothing", "train.learner", "__wrapped__", ""])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    for package in (share_jax, share_jax.train):
        with pytest.raises(AttributeError, match=f"No {package.__name__} attribute {name}"):
            getattr(package, name)
        assert not hasattr(package, name)
