"""Reading a folder that another process saves into: what one save has replaced meanwhile is read again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from share_jax.checkpoint.manifest import FILE
from share_jax.errors import FormatError

Read = TypeVar("Read")

TRIES = 10
"""Saves that a reader waits for; each rewrites the manifest once."""


def steady(folder: str | os.PathLike[str], read: Callable[[], Read]) -> Read:
    """What `read` makes of the folder, again where a save came between its manifest and its arrays.

    Args:
        folder: of a checkpoint.
        read: reads it from the manifest on.

    Raises:
        FormatError: as `read`, of a folder that has not changed meanwhile.
    """
    for _ in range(TRIES):
        before = _manifest(Path(folder))
        try:
            return read()
        except FormatError:
            if _manifest(Path(folder)) == before:
                raise
    return read()


def _manifest(folder: Path) -> bytes | None:
    try:
        return (folder / FILE).read_bytes()
    except OSError:
        return None
