"""Writing to a disk so that it stays written, telling whether it did, and what went wrong when it does not.

A kill of the process loses nothing that was written; a reset of the machine loses what the kernel still held. So files
and the folders that name them are flushed to the device before anything refers to them.
"""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from share_jax.errors import first_line


def partial_of(path: Path) -> Path:
    """Where this process's new content of a file stands until it takes the file's place; a kill may leave it behind."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def is_partial(name: str, *of: str) -> bool:
    """Whether a file of that name is what a kill left of one of the files `of`.

    >>> is_partial(".manifest.json.123.tmp", "manifest.json"), is_partial("manifest.json", "manifest.json")
    (True, False)
    """
    return any(re.fullmatch(rf"\.{re.escape(each)}(\.\d+)?\.tmp", name) for each in of)


def replace_text(text: str, *paths: Path) -> None:
    """`replace_bytes` of a text in UTF-8."""
    replace_bytes(text.encode(), *paths)


def replace_bytes(data: bytes, *paths: Path) -> None:
    """Writes files, each in one step: a reader, or a run after a kill, sees the old content or the new.

    All are on the disk under other names before the first takes its place, so that a full disk changes none of them.

    Args:
        data: the new content.
        *paths: files of one folder, replaced in this order.

    Raises:
        OSError: if it cannot be written; the old content stays.
    """
    partials = [partial_of(path) for path in paths]
    try:
        for partial in partials:
            partial.unlink(missing_ok=True)
            write_new(partial, data)
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    except BaseException:
        for partial in partials:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        raise
    flush(paths[0].parent)


def write_new(path: Path, data: bytes) -> None:
    """Writes a file where there is nothing, and flushes it; no link is followed, as the folder may be anybody's.

    Raises:
        OSError: if there is something, or it cannot be written.
    """
    with path.open("xb") as file:
        file.write(data)
    flush(path)


def flush(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to the device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flushes every file and folder below `folder`, it and its own entry included."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        flush(path)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> str:
    """What the operating system said, in few words; the first line of what a library made of it otherwise.

    >>> reason(OSError(28, "No space left on device"))
    'No space left on device'
    >>> reason(ValueError("Failed to write 8692 bytes: File too large [os_error_code='27']"))
    'File too large'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    return first_line(error)
