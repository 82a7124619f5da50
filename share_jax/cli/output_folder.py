"""Where a command may write: apart from what it reads, and over what is there only where that is meant."""

import os
from collections.abc import Iterable
from pathlib import Path

from share_jax.adapter_set.manifest import is_whole_set
from share_jax.errors import InputError, message
from share_jax.formats.format import FORMATS
from share_jax.storage.untrusted import shown

_KINDS = (is_whole_set, *(each.is_whole for each in FORMATS))


def check_output(out: str | os.PathLike, overwrite: bool, inputs: Iterable[str | os.PathLike] = ()) -> Path:
    """Returns where a new folder may be written.

    Args:
        out: where it shall be.
        overwrite: whether a set or an adapter that is there may be replaced.
        inputs: the folders that are read.

    Raises:
        InputError: it is, holds or lies within an input; the parent is missing; something is there already and
            `overwrite` is false, or more is there than a set or an adapter.
    """
    path = Path(os.path.abspath(out))
    what = f"output {shown(out)}"
    _check_apart(path, what, inputs)
    _check_parent(path, what)
    _check_there(path, what, overwrite)
    return path


def check_outputs(
    out: str | os.PathLike, names: Iterable[str], overwrite: bool, inputs: Iterable[str | os.PathLike] = ()
) -> Path:
    """Returns the folder in which a new folder of each name may be written; it may be there, and hold other things.

    Args:
        out: where they shall be.
        names: of the folders.
        overwrite: whether a set or an adapter that is there by such a name may be replaced.
        inputs: the folders that are read.

    Raises:
        InputError: it is, holds or lies within an input, or is no folder; one of the folders may not be written.
    """
    path = Path(os.path.abspath(out))
    what = f"output {shown(out)}"
    _check_apart(path, what, inputs)
    if os.path.lexists(path) and not path.is_dir():
        raise InputError(message(what, got="a file or a link", expected="a folder", fix="name another"))
    for name in names:
        _check_there(path / name, f"output {shown(Path(out, name))}", overwrite)
    return path


def check_file_output(
    out: str | os.PathLike, inputs: Iterable[str | os.PathLike] = (), *, overwrite: bool = True
) -> Path:
    """Returns where a file may be written, or replaced.

    Args:
        out: where it shall be.
        inputs: the files and folders that are read.
        overwrite: whether a file that is there and not empty may be replaced.

    Raises:
        InputError: the parent is missing or not to be written to; something is there that is no file, or a file that
            may not be replaced; it is an input, or lies within one.
    """
    path = Path(os.path.abspath(out))
    what = f"output {shown(out)}"
    _check_parent(path, what)
    if not os.access(path.parent, os.W_OK):
        raise InputError(
            message(what, got="a parent folder without the right to write", expected="that right", fix="name another")
        )
    if os.path.lexists(path) and not path.is_file():
        got = "a folder" if path.is_dir() else "something that is no file"
        raise InputError(message(what, got=got, expected="a file's name", fix="name a file"))
    for read in inputs:
        if _within(path, read):
            got = f"a place that is or lies within {shown(read)}, which is read"
            raise InputError(message(what, got=got, expected="a file apart from it", fix="name another"))
    if not overwrite and path.exists() and path.stat().st_size:
        got, fix = "a file that is not empty", "name another or pass --overwrite"
        raise InputError(message(what, got=got, expected="a new or empty file", fix=fix))
    return path


def _check_apart(path: Path, what: str, inputs: Iterable[str | os.PathLike]) -> None:
    for folder in inputs:
        if _overlap(path, folder):
            raise InputError(
                message(what, got=f"a place that is, holds or lies within {shown(folder)}, which is read",
                     expected="a folder apart from it", fix="name another")
            )  # fmt: skip


def _check_there(path: Path, what: str, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise InputError(message(what, got="a file or a link", expected="a new folder", fix="name another"))
    _check_content(path, what, overwrite)


def _overlap(out: Path, folder: str | os.PathLike) -> bool:
    first, second = Path(os.path.realpath(out)), Path(os.path.realpath(folder))
    return first.is_relative_to(second) or second.is_relative_to(first)


def _within(out: Path, read: str | os.PathLike) -> bool:
    """Whether a file, by its own name or as what it is a link to, is what is read, or lies in it."""
    folder = Path(os.path.realpath(read))
    named, meant = Path(os.path.realpath(out.parent)) / out.name, Path(os.path.realpath(out))
    return any(place.is_relative_to(folder) for place in (named, meant)) or (
        out.exists() and folder.exists() and os.path.samefile(out, folder)
    )


def _check_parent(path: Path, what: str) -> None:
    if not path.parent.is_dir():
        raise InputError(message(what, got="no parent folder", expected="one", fix="make it (mkdir -p)"))


def _check_content(path: Path, what: str, overwrite: bool) -> None:
    if not any(path.iterdir()):
        return
    if not any(is_kind(path) for is_kind in _KINDS):
        raise InputError(
            message(what, got="a folder with content that is neither a set nor an adapter",
                 expected="a new or empty folder", fix="name another")
        )  # fmt: skip
    if not overwrite:
        raise InputError(
            message(what, got="a folder that is not empty", expected="a new or empty folder",
                 fix="name another or pass --overwrite")
        )  # fmt: skip
