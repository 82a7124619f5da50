"""Reading a folder that another process saves into: what one save has replaced meanwhile is read again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from share_jax.errors import FormatError

Read = TypeVar("Read")

TRIES = 10
"""Saves that a reader waits for; each rewrites the manifest once."""


def steady(manifest: str | os.PathLike[str], read: Callable[[], Read]) -> Read:
    """What `read` makes of a folder, again where a save came between its manifest and its arrays.

    Args:
        manifest: the file whose writing commits a save.
        read: reads the folder from the manifest on.

    Raises:
        FormatError, OSError: as `read`, of a folder that has not changed meanwhile.
    """
    for _ in range(TRIES):
        before = _content(Path(manifest))
        try:
            return read()
        except (FormatError, OSError):
            if _content(Path(manifest)) == before:
                raise
    return read()


def _content(manifest: Path) -> bytes | None:
    try:
        return manifest.read_bytes()
    except OSError:
        return None
