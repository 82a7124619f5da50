"""Several runs at once, each in a process of its own on a core of its own.

The models of the small streams are so narrow that a second core adds nothing to a step; a second run on it does. In a
process that is held to one core XLA sums as on a machine with one, whatever runs beside it.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from experiments.config.run_config import Config
from share_jax.errors import InputError, message
from share_jax.runtime.malloc import keep_freed
from share_jax.runtime.preemption import Preempted, Preemption

STOPPED = 3
"""Exit status of a process whose run was told to stop."""


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def run_apart(
    configs: Sequence[Config],
    jobs: int,
    tell: Callable[[str], None],
    after: Callable[[], object],
    again: str,
) -> None:
    """Runs in order, at most `jobs` at once; SIGTERM is passed on to them, and each saves where it is.

    Args:
        configs: one run each, in workdirs of their own.
        jobs: how many at once; no more than there are cores.
        tell: told in a line what begins and what has ended.
        after: called after every run that has ended.
        again: how the user goes on with what was broken off.

    Raises:
        InputError: a run failed, and has told why; the others were stopped, and have saved where they were.
        Preempted: if it was told to stop.
    """
    left, free = list(configs), cores()[:jobs]
    running: dict[int, tuple[SpawnProcess, int, str]] = {}
    failed: list[str] = []
    with _passing_on(running) as asked:
        while running or (left and not failed and not asked):
            while left and free and not failed and not asked:
                config, core = left.pop(0), free.pop(0)
                name = config.workdir.name
                tell(f"{name}: {'goes on' if config.resume else 'begins'}, on core {core}")
                process = _begin(config, core, again)
                running[process.sentinel] = process, core, name
                if asked:
                    process.terminate()
            for sentinel in wait(list(running)):
                process, core, name = running.pop(sentinel)  # type: ignore[call-overload]
                process.join()
                free.append(core)
                if process.exitcode == 0:
                    tell(f"{name}: done")
                    after()
                    continue
                if process.exitcode in (STOPPED, -signal.SIGTERM):  # the second if it had not begun to listen
                    asked.append(signal.SIGTERM)
                else:
                    failed.append(name)
                _terminate(running)
    if failed:
        got, fix = "an error, told above", f"fix it, and {again}"
        raise InputError(message(f"run {failed[0]}", got=got, expected="results", fix=fix))
    if asked:
        raise Preempted


def _begin(config: Config, core: int, again: str) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=work, args=(config, core, again), daemon=True)
    process.start()
    return process


def work(config: Config, core: int, again: str) -> None:
    """One run, as the whole of a process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it
    keep_freed()
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    from dataclasses import replace

    from experiments.run import guarded, run

    stopped: list[str] = []

    def told(what: str) -> None:
        stopped.append(what)
        print(f"terminated: {config.workdir.name}, {what}; {again}", file=sys.stderr, flush=True)

    def whole() -> None:
        with Preemption(told) as preemption:
            run(replace(config, quiet=True), preemption)

    status = guarded(whole, again)
    sys.exit(STOPPED if stopped else status)


def end_with_parent() -> None:
    """Stops this process as SIGTERM does when the one that began it is no more, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _terminate(running: dict[int, Any]) -> None:
    for process, _, _ in list(running.values()):
        process.terminate()


@contextmanager
def _passing_on(running: dict[int, Any]) -> Iterator[list[int]]:
    """SIGTERM goes to the processes that run while the context lasts, as the end of the context does.

    Yields:
        The signals that have come.
    """
    asked: list[int] = []

    def heard(number: int, frame: Any) -> None:
        asked.append(number)
        _terminate(running)

    main = threading.current_thread() is threading.main_thread()
    old = signal.signal(signal.SIGTERM, heard) if main else None
    try:
        yield asked
    finally:
        _terminate(running)
        for process, _, _ in list(running.values()):
            process.join()
        if main:
            signal.signal(signal.SIGTERM, old)
