"""Independent pieces of host work on all processors."""

import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

AHEAD = 4
"""Pieces that are begun before they are asked for, whose results are held."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_ALONE = threading.Lock()
"""How many threads BLAS has is one number for the whole process: whoever changes it puts it back before the next."""
_INSIDE = threading.local()


def processors() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def each(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """`[work(x) for x in pieces]`, on a thread per processor: NumPy's products and decompositions run side by side.

    Where there are several threads, BLAS has one in each: with more, its calls would wait for each other. The first
    error is raised.
    """
    threads = min(processors(), len(pieces))
    if threads < 2 or getattr(_INSIDE, "yes", False):
        return [work(x) for x in pieces]
    with (
        _ALONE,
        _controller().limit(limits=1, user_api="blas"),
        ThreadPoolExecutor(threads, initializer=_enter) as pool,
    ):
        return list(pool.map(work, pieces))


def ahead(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """`map(work, pieces)`, with the next pieces worked on while one is used: at most `AHEAD`, one per processor.

    For what waits for files. An error is raised where its result would come, and nothing later is used.
    """
    threads = min(processors(), AHEAD)
    rest = iter(pieces)
    with ThreadPoolExecutor(threads, initializer=_enter) as pool:
        begun = deque(pool.submit(work, piece) for piece in itertools.islice(rest, threads))
        try:
            while begun:
                result = begun.popleft().result()
                begun.extend(pool.submit(work, piece) for piece in itertools.islice(rest, 1))
                yield result
        finally:
            for future in begun:
                future.cancel()


def _enter() -> None:
    _INSIDE.yes = True  # a piece that has pieces of its own works through them alone


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # of the libraries that are loaded by now: NumPy's is
