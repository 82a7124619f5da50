"""Reading what nobody vouches for: what a reader may not do, watched by Python's own audit events, and for how long."""

import contextlib
import encodings.cp437  # noqa: F401  zipfile would import it when a name in an archive is no ASCII
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from share_jax.errors import ShareError

LIMIT = 5.0
"""Seconds of processor time that reading one input may take; other work on the machine does not count."""
_EXECUTES = ("compile", "exec", "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
_watched: list[tuple[tuple[str, ...], list[str]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    roots, seen = _watched[-1]
    if event in _EXECUTES:
        seen.append(f"{event} of {arguments[0]!r:.60}")
    elif event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0])) if b"\0" not in os.fsencode(arguments[0]) else roots[0]
        if not any(path == root or path.startswith(root + os.sep) for root in roots):
            seen.append(f"open of {path}")


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(*roots: Path) -> Iterator[None]:
    """Fails if anything outside the roots is opened, anything is executed, or `LIMIT` is passed."""

    def late(*_: Any) -> None:
        raise AssertionError(f"reading took over {LIMIT} s")

    seen: list[str] = []
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    _watched.append((tuple(os.path.realpath(root) for root in roots), seen))
    try:
        yield
    finally:
        _watched.pop()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert not seen, seen


def read_watched(opened: Callable[[], Sequence[Any]], *roots: Path) -> str:
    """Opens sources and reads them to the end; returns the line they end with, empty where they are read."""
    line = ""
    with watched(*roots):
        try:
            for source in opened():
                source.adapter()
                source.extras()
        except ShareError as e:
            line = str(e)
    assert "\n" not in line
    assert len(line) < 2000
    return line
