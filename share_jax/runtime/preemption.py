"""Stopping when the platform asks for it: SIGTERM, some seconds before the machine is taken away.

    preemption = Preemption(lambda what: print(f"stopped: {what}", file=sys.stderr))
    with preemption:
        for batch in batches:
            state = step(state, batch)
            preemption.holding(lambda: save(state))
            preemption.point()  # saves and raises Preempted if the process was asked to stop

A signal is taken where the state is whole, at a `point`: between steps, and between batches of an evaluation. While
nothing is held that could be saved, the run is stopped at once, in the midst of whatever it does: as a kill does no
harm there, this does none. Python hears of a signal only between two of its own operations, and a compilation is one
operation that can take minutes; so a thread of its own hears of it as well, and ends the process when the main thread
does not come to a point in time.

On several processes the signal reaches one of them, and all must save the same step. There JAX's own coordination is
asked instead, `multihost_utils.reached_preemption_sync_point`, which picks a point that none has passed yet; after
`jax.distributed.initialize` JAX takes SIGTERM for it, and nothing is installed here. Every process must then come to
the same points in the same order.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

GRACE = 20.0
"""Seconds that the step in hand may take when there is something to save. Clouds give about 30 from signal to kill."""

PATIENCE = 2.0
"""Seconds in which the main thread may unwind by itself when there is nothing to save."""

_POLL = 0.02
_STOP = b"\0"

NOTHING = "nothing was in flight"
LATE = "the step in hand took too long, and the last saved state stands"


class Preempted(BaseException):
    """Raised after the state was saved; the text says what.

    A BaseException, so that `except Exception` does not catch it.

    Example:
        >>> try:
        ...     with Preemption() as preemption:
        ...         preemption.holding(lambda: "saved at step 3")
        ...         os.kill(os.getpid(), signal.SIGTERM)  # as a platform does before it takes the machine away
        ...         preemption.point()
        ... except Preempted as stop:
        ...     print(stop)
        saved at step 3
    """


class Preemption:
    """Whether to stop, what to save before, and the end of the process.

    Attributes:
        tell: called once with a few words on what was saved, just before the process ends.

    Example:
        >>> with Preemption(lambda what: print("stopped:", what)) as preemption:
        ...     for step in range(3):
        ...         preemption.holding(lambda step=step: f"saved at step {step}")
        ...         preemption.point()  # nobody has asked to stop
        ...     preemption.released()
    """

    def __init__(
        self, tell: Callable[[str], None] = lambda what: None, *, grace: float = GRACE, patience: float = PATIENCE
    ) -> None:
        """Installs nothing yet; without `with`, no point ever stops."""
        self.tell = tell
        self._grace, self._patience = grace, patience
        self._save: Callable[[], str] | None = None
        self._asked = self._saving = self._installed = self._leaving = False
        self._points = 0
        self._said = threading.Lock()
        self._old: Any = None
        self._pipe: tuple[int, int] | None = None
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Takes SIGTERM, on the main thread of a process that is alone; JAX takes it where there are several."""
        self._installed = True
        if threading.current_thread() is threading.main_thread() and not _distributed():
            reader, writer = self._pipe = os.pipe()
            os.set_blocking(writer, False)
            self._watcher = threading.Thread(target=self._watch, args=(reader,), name="preemption", daemon=True)
            self._watcher.start()
            self._old = signal.signal(signal.SIGTERM, self._heard), signal.set_wakeup_fd(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the old handler back and, if the run was asked to stop, tells what was saved."""
        self._save, self._leaving = None, True
        if isinstance(error, Preempted) and not self._said.acquire(blocking=False):
            time.sleep(self._grace)  # the watcher is ending the process
        if self._pipe is not None:
            handler, descriptor = self._old
            signal.signal(signal.SIGTERM, handler)
            signal.set_wakeup_fd(descriptor)
            os.write(self._pipe[1], _STOP)
            if self._watcher is not None:
                self._watcher.join()
            for end in self._pipe:
                os.close(end)
            self._pipe = self._watcher = None
        if isinstance(error, Preempted):
            self.tell(str(error))

    def holding(self, save: Callable[[], str]) -> None:
        """From now on there is something to save: `save` is called at the point where the run stops, and says what."""
        self._save = save

    def released(self) -> None:
        """Nothing is held any more, such as after a task was saved.

        Raises:
            Preempted: if the process was asked to stop.
        """
        self._save = None
        if self._asked:
            raise Preempted(NOTHING)

    def point(self) -> None:
        """A place where the run can stop.

        Raises:
            Preempted: if the process was asked to stop; what is held has been saved.
        """
        if not self._installed:
            return
        if not (_reached(self._points) if _distributed() else self._asked):
            self._points += 1
            return
        if self._save is None:
            raise Preempted(NOTHING)
        self._saving = True
        raise Preempted(self._save())

    def _heard(self, number: int, frame: Any) -> None:
        self._asked = True
        if self._save is None and not self._leaving:
            raise Preempted(NOTHING)

    def _watch(self, reader: int) -> None:
        while (got := os.read(reader, 1)) != _STOP:
            if got[0] == signal.SIGTERM:
                self._asked = True
                self._leave(time.monotonic())

    def _leave(self, began: float) -> None:
        while self._saving or time.monotonic() - began < (self._patience if self._save is None else self._grace):
            time.sleep(_POLL)
            if self._said.locked() or self._pipe is None:
                return
        if self._said.acquire(blocking=False):
            self.tell(NOTHING if self._save is None else LATE)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def _distributed() -> bool:
    """Whether JAX coordinates several processes; JAX is not loaded for the question."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _reached(number: int) -> bool:
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(number)
