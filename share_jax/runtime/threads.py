"""Independent pieces of host work on all processors."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_ALONE = threading.Lock()
"""How many threads BLAS has is one number for the whole process: whoever changes it puts it back before the next."""
_INSIDE = threading.local()


def processors() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def parallel_map(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
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


def _enter() -> None:
    _INSIDE.yes = True  # a piece that has pieces of its own works through them alone


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # of the libraries that are loaded by now: NumPy's is
