"""What the measurements were made on: processor, threads, versions, and how much of it others used meanwhile."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def use_threads(count: int | None) -> int:
    """Binds this process, and those that it starts, to so many of its processors; all when None.

    XLA makes as many threads as there are processors to run on, so this must come before JAX starts.
    """
    allowed = sorted(os.sched_getaffinity(0))
    chosen = allowed[: count or len(allowed)]
    os.sched_setaffinity(0, chosen)
    os.environ["OMP_NUM_THREADS"] = str(len(chosen))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `share-jax` sets it: see the README's notes
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return len(chosen)


def processor() -> str:
    """The processor's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((text.partition(":")[2].strip() for text in lines if text.startswith("model name")), "")


class Watch:
    """How busy other processes kept the machine while the suite ran."""

    def __init__(self) -> None:
        """Starts watching."""
        self.began, self.busy, self.own = time.time(), _busy(), _own(())

    def found(self, children: Sequence[int] = ()) -> dict[str, Any]:
        """Seconds so far, and how many processors others kept busy on average; None where the kernel does not say.

        Args:
            children: ids of processes of ours that are still there.
        """
        seconds, now, others = time.time() - self.began, _busy(), None
        if now is not None and self.busy is not None:
            others = max(0.0, (now - self.busy) - (_own(children) - self.own)) / max(seconds, 1e-9)
        return {"seconds": seconds, "processors_busy_with_others": others, "load_average": os.getloadavg()[0]}


def _ticks(path: str, fields: slice, skip: str) -> list[int]:
    text = Path(path).read_text(encoding="utf-8").split("\n", 1)[0].rpartition(skip)[2]
    return [int(field) for field in text.split()[fields]]


def _busy() -> float | None:
    """CPU seconds that all processors have worked."""
    try:
        ticks = _ticks("/proc/stat", slice(0, 8), "cpu ")
    except OSError:
        return None
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own(children: Sequence[int]) -> float:
    """CPU seconds of this process, of the children that have ended, and of those named with theirs."""
    seconds = sum(os.times()[:4])
    for child in children:
        try:
            seconds += sum(_ticks(f"/proc/{child}/stat", slice(11, 15), ")")) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return seconds


def machine(threads: int) -> dict[str, Any]:
    """The machine, for the record."""
    system = ", ".join(part for part in (platform.system(), platform.machine(), " ".join(platform.libc_ver())) if part)
    return {"processor": processor(), "processors": os.cpu_count(), "threads": threads, "system": system}
