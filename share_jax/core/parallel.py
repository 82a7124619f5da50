"""Independent pieces of host work on all processors."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def processors() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def each(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """`[work(x) for x in pieces]`, on a thread per processor: NumPy's products and decompositions run side by side.

    What one piece gives does not depend on the others. The first error is raised.
    """
    threads = min(processors(), len(pieces))
    if threads < 2:
        return [work(x) for x in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, pieces))
