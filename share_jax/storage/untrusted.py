"""Files of a folder that is not trusted: opened inside it only, checked, published atomically."""

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, InputError, TaskError, message
from share_jax.storage.atomic_write import flush
from share_jax.storage.lock import hold_itself, take
from share_jax.storage.unfetched import stand_in

JSON_LIMIT = 256 * 2**20
"""Bytes; a JSON file above this is refused before it is read."""

TEMP_MARK = ".share-jax-tmp-"
"""In the name of every temporary sibling; whatever carries it is a leftover of a killed command."""

_ASIDE = "-old"
"""Behind the name of a sibling: what was in its place, until it is there."""


def shown(text: object, limit: int = 200) -> str:
    """The text on one line, for a message: no control characters, cut after `limit`."""
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def short_name(name: str) -> str:
    """The beginning of a file's name, so short that a temporary name made of it is a valid one, too.

    >>> short_name("adapter"), len(short_name("重" * 80).encode())
    ('adapter', 78)
    """
    return name.encode(errors="ignore")[:80].decode(errors="ignore")


def check_task_name(name: str, fix: str = "rename the folder") -> str:
    r"""Returns a name that is safe as a file name.

    Args:
        name: the task's.
        fix: what to do about one that is not.

    Raises:
        TaskError: it is empty, too long, or holds `/`, `\`, `..` or a control character.
    """
    bad = not name or name == "." or ".." in name or "/" in name or "\\" in name or not name.isprintable()
    if bad or len(name.encode()) > 150:
        raise TaskError(
            message(
                "task name",
                got=repr(shown(name)),
                expected="1 to 150 bytes of printable text without '/', '\\' or '..'",
                fix=fix,
            )
        )
    return name


def task_name_of(folder: str | os.PathLike) -> str:
    """The task name that a folder stands for: its own last component."""
    return check_task_name(os.path.basename(os.path.abspath(os.fspath(folder))))


def check_folder(folder: str | os.PathLike, what: str) -> Path:
    """Returns the folder as a path.

    Raises:
        InputError: it does not exist or is no folder.
    """
    path = Path(folder)
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise InputError(message(f"{what} {shown(folder)}", got=got, expected="a folder", fix="check the path"))
    return path


def open_inside(folder: str | os.PathLike, name: str) -> int:
    """Opens a regular file of the folder for reading and returns its descriptor.

    Of a snapshot in a Hugging Face cache, whose files are links to the cache's blobs, those are opened.

    Raises:
        FormatError: the file is missing, is not a regular file, or lies outside the folder.
    """
    label = f"file {shown(Path(folder).name)}/{shown(name)}"
    root = os.path.realpath(folder)
    try:
        real = os.path.realpath(os.path.join(root, name))
        inside = (os.path.commonpath([root, real]) == root and real != root) or _is_blob(root, real)
    except ValueError as e:
        raise FormatError(message(label, got=shown(e), expected="a file name", fix="rename it")) from None
    if not inside:
        raise FormatError(
            message(label, got="a path that leaves the folder", expected="a file inside it", fix="copy it in (cp -rL)")
        )
    try:
        fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise FormatError(
            message(label, got="nothing there", expected="a file", fix="check that the folder is complete")
        ) from None
    except OSError as e:
        raise FormatError(
            message(label, got=e.strerror or "an error", expected="a readable file", fix="check its rights")
        ) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(message(label, got="not a regular file", expected="a regular file", fix="check the folder"))
    return fd


def _is_blob(folder: str, file: str) -> bool:
    """Whether the folder is, or lies in, `CACHE/snapshots/REVISION`, and the file in `CACHE/blobs`; both are real."""
    place = Path(folder)
    caches = [each.parent.parent for each in (place, *place.parents) if each.parent.name == "snapshots"]
    return any(Path(file).parent == cache / "blobs" for cache in caches[:1])


def exists_inside(folder: str | os.PathLike, name: str) -> bool:
    """Whether the folder has an entry of that name (which may still be refused when opened)."""
    return os.path.lexists(os.path.join(folder, name))


def read_json(folder: str | os.PathLike, name: str) -> dict[str, Any]:
    """Reads a JSON object strictly: UTF-8, no NaN, no key twice.

    Raises:
        FormatError: anything else.
    """
    return parse_json(read_small(folder, name), f"file {shown(Path(folder).name)}/{shown(name)}")


def read_small(folder: str | os.PathLike, name: str) -> bytes:
    """Reads a file of the folder that JSON is to be in.

    Raises:
        FormatError: it is larger than any such file, or see `open_inside`.
    """
    label = f"file {shown(Path(folder).name)}/{shown(name)}"
    with os.fdopen(open_inside(folder, name), "rb") as f:
        size = os.fstat(f.fileno()).st_size
        if size > JSON_LIMIT:
            raise FormatError(
                message(label, got=f"{size} bytes", expected=f"at most {JSON_LIMIT}", fix="check the file")
            )
        return f.read()


def parse_json(data: bytes, label: str) -> dict[str, Any]:
    """The JSON object in `data`, strictly; see `read_json`."""
    try:
        value = strict_json(data)
    except ValueError as e:
        got, fix = stand_in(data) or (shown(e), "write the file again")
        raise FormatError(message(label, got=got, expected="JSON", fix=fix)) from None
    if not isinstance(value, dict):
        raise FormatError(
            message(label, got=type(value).__name__, expected="a JSON object", fix="write the file again")
        )
    return value


def strict_json(data: bytes, *, nan: bool = False) -> Any:
    """What a JSON text in UTF-8 says, no key twice.

    Args:
        data: the text.
        nan: whether NaN and infinities, which Python writes and JSON lacks, are read.

    Raises:
        ValueError: it says something else.
    """
    constant = float if nan else _no_constant
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_twice, parse_constant=constant)
    except RecursionError:
        raise ValueError("nesting too deep") from None


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key that is there twice")
    return out


def _no_constant(name: str) -> float:
    raise ValueError(f"the number {name}")


@contextlib.contextmanager
def publish(out: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yields an empty temporary sibling; on success it becomes `out`, on any error it is removed.

    What was at `out` (the caller has checked that it may be replaced) is moved aside first and removed last; one of
    both is there after a kill, and the next command to the same place puts back what was moved aside. The sibling is
    locked while it is in use, so that the leftovers of killed commands can be told from it and are removed.

    Args:
        out: where the folder shall be.
        overwrite: whether what is at `out` may be replaced.

    Raises:
        InputError: something has come to be at `out` meanwhile, and may not be replaced.
        BusyError: another command writes into what is there.
    """
    prefix = f".{short_name(out.name)}{TEMP_MARK}"
    clean_leftovers(out, prefix)
    temp = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    aside = temp.with_name(temp.name + _ASIDE)
    with hold_itself(temp):
        try:
            temp.chmod(0o777 & ~_umask())
            yield temp
            flush(temp)
            _put(temp, out, aside, overwrite)
            flush(out.parent)
            shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            if os.path.lexists(aside) and not os.path.lexists(out):
                os.rename(aside, out)
            shutil.rmtree(temp, ignore_errors=True)
            raise


def _put(temp: Path, out: Path, aside: Path, overwrite: bool) -> None:
    """Gives a finished folder its name."""
    if overwrite and os.path.lexists(out):
        with hold_itself(out) if out.is_dir() else contextlib.nullcontext():
            os.rename(out, aside)
            os.rename(temp, out)
        return
    try:
        os.rename(temp, out)  # onto nothing, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        got, fix = "something that another command has put there meanwhile", "name another, or pass --overwrite"
        raise InputError(message(f"output {shown(out)}", got=got, expected="a new folder", fix=fix)) from error


def clean_leftovers(out: Path, prefix: str) -> None:
    """Removes temporary folders beside `out` that no command holds; where `out` is gone, the old one is put back."""
    with os.scandir(out.parent) as entries:
        found = [e.path for e in entries if e.name.startswith(prefix) and e.is_dir(follow_symlinks=False)]
    for path in sorted(found, key=lambda path: not path.endswith(_ASIDE)):
        if path.endswith(_ASIDE) and not os.path.lexists(out) and not _held(path.removesuffix(_ASIDE)):
            os.rename(path, out)
            continue
        with contextlib.suppress(OSError):
            if not _held(path):
                shutil.rmtree(path, ignore_errors=True)


def _held(path: str) -> bool:
    """Whether a living command holds a temporary folder; without locks nobody knows, and it counts as held."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return bool(take(descriptor))
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
