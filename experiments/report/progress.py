"""How far a job is: method, task, step, loss and time left, as a live bar or as plain lines on standard error.

    with open_progress(total_steps) as progress:
        progress.begin(method="shared_a", task_index=0, task_count=10, task_name="banking")
        for batch in batches:
            loss = step(batch)  # may still be under way on the device
            progress.update(1, loss)

An update counts and looks at the clock, no more. The loss is read (which waits for the device) only when something
is shown: `REFRESHES_PER_SECOND` on a terminal, every `SECONDS_BETWEEN_LINES` elsewhere.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, SupportsFloat, TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from experiments.report.cells import DASH, duration, shortened
from share_jax.errors import InputError, message

REFRESHES_PER_SECOND = 3
SECONDS_BETWEEN_LINES = 15.0
RATE_WINDOW = 60.0
"""Seconds of the recent past from which the rate is taken: methods differ in the time of a step."""

Loss = SupportsFloat | Callable[[], SupportsFloat] | None
Clock = Callable[[], float]


class Progress(Protocol):
    """What a job tells about itself."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, *, method: str, task_index: int, task_count: int, task_name: str) -> None:
        """Names the task whose steps come next; `task_index` counts from 0 and is shown from 1."""
        ...

    def update(self, steps_done_delta: int = 1, loss: Loss = None) -> None:
        """Counts steps; `loss` is a number, a scalar array or a callable that gives one, read only when shown."""
        ...

    def skip(self, steps: int) -> None:
        """Counts steps that an earlier run did, without taking them for speed."""
        ...

    def note(self, text: str) -> None:
        """Shows a line of text."""
        ...

    def scored(self, accuracies: Sequence[float | None]) -> None:
        """Tells the accuracy on each task after the one just learnt, None where it was not evaluated."""
        ...

    def saving(self) -> None:
        """Tells that a checkpoint of all that was counted comes next."""
        ...


def open_progress(
    total_steps: int, quiet: bool = False, *, stream: TextIO | None = None, clock: Clock = time.monotonic
) -> Progress:
    """A live bar when `stream` (standard error by default) is a terminal, plain lines when not, nothing if quiet.

    Raises:
        InputError: `total_steps` is not a whole number of at least 0.
    """
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 0:
        raise InputError(
            message(
                "total_steps", got=repr(total_steps), expected="a whole number of at least 0", fix="count all steps"
            )
        )
    if quiet:
        return NullProgress()
    shown_on: TextIO = sys.stderr if stream is None else stream
    console = Console(file=shown_on)
    if console.is_terminal and not console.is_dumb_terminal:
        return _Shown(total_steps, _Bar(console), 1 / REFRESHES_PER_SECOND, clock)
    return _Shown(total_steps, _Lines(shown_on), SECONDS_BETWEEN_LINES, clock)


class NullProgress:
    """Shows nothing, and never reads a loss."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, *, method: str, task_index: int, task_count: int, task_name: str) -> None:
        """Shows nothing."""

    def update(self, steps_done_delta: int = 1, loss: Loss = None) -> None:
        """Shows nothing."""

    def skip(self, steps: int) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""

    def scored(self, accuracies: Sequence[float | None]) -> None:
        """Shows nothing."""

    def saving(self) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class _State:
    """What is shown at one moment; times in seconds."""

    method: str
    task: str
    done: int
    total: int
    loss: str
    left: float | None
    elapsed: float

    @property
    def steps(self) -> str:
        return f"{self.done:,}/{self.total:,}"

    @property
    def percent(self) -> int:
        return min(100 * self.done // self.total, 100) if self.total else 100


class _Screen(Protocol):
    def open(self) -> None: ...

    def close(self, state: _State, finished: bool) -> None: ...

    def begin_task(self, state: _State) -> None: ...

    def end_task(self, state: _State) -> None: ...

    def show(self, state: _State) -> None: ...

    def note(self, text: str) -> None: ...


class _Shown:
    """Counts steps, takes the rate, and shows the state on a screen every `interval` seconds."""

    def __init__(self, total: int, screen: _Screen, interval: float, clock: Clock) -> None:
        self._total, self._screen, self._interval, self._clock = total, screen, interval, clock
        self._method = self._task = ""
        self._loss: Loss = None
        self._loss_text = DASH
        self._done = self._worked = 0  # all steps, and those that were not skipped
        self._started = self._shown_at = clock()
        self._samples = deque([(self._started, 0)])

    def __enter__(self) -> Self:
        self._screen.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end_task()
        self._screen.close(self._state(self._clock()), finished=kind is None)

    def begin(self, *, method: str, task_index: int, task_count: int, task_name: str) -> None:
        self._end_task()
        self._method, self._task = method, f"{task_index + 1}/{task_count} {task_name}"
        self._loss_text = DASH
        self._screen.begin_task(self._sampled())

    def update(self, steps_done_delta: int = 1, loss: Loss = None) -> None:
        self._done += steps_done_delta
        self._worked += steps_done_delta
        if loss is not None:
            self._loss = loss
        if self._clock() - self._shown_at >= self._interval:
            self._read_loss()
            self._screen.show(self._sampled())

    def skip(self, steps: int) -> None:
        self._done += steps

    def note(self, text: str) -> None:
        self._screen.note(text)

    def scored(self, accuracies: Sequence[float | None]) -> None:
        """The table at the end shows them."""

    def saving(self) -> None:
        """A save is not shown."""

    def _read_loss(self) -> None:
        loss, self._loss = self._loss, None
        if loss is not None:
            value = float(loss() if callable(loss) else loss)
            self._loss_text = f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"

    def _end_task(self) -> None:
        self._read_loss()
        if self._task:
            self._screen.end_task(self._sampled())

    def _sampled(self) -> _State:
        """The state to show now, taken into the rate."""
        now = self._shown_at = self._clock()
        self._samples.append((now, self._worked))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW:
            self._samples.popleft()
        return self._state(now)

    def _state(self, now: float) -> _State:
        return _State(
            method=self._method,
            task=self._task,
            done=self._done,
            total=self._total,
            loss=self._loss_text,
            left=self._left(now),
            elapsed=now - self._started,
        )

    def _left(self, now: float) -> float | None:
        remaining = self._total - self._done
        if remaining <= 0:
            return 0.0
        since, steps = self._samples[0]
        if self._worked == steps:  # nothing within the window: a step that compiles, say
            since, steps = self._started, 0
        return remaining * (now - since) / (self._worked - steps) if self._worked > steps else None


class _Lines:
    """One plain line when the first task begins, one at the end of each, and one at every interval between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = False

    def open(self) -> None:
        return None

    def close(self, state: _State, finished: bool) -> None:
        word = "done" if finished else "stopped"
        self.note(f"[{state.percent:3d}%] {word}: step {state.steps} in {duration(state.elapsed)}")

    def begin_task(self, state: _State) -> None:
        if not self._begun:
            self.show(state)
        self._begun = True

    def end_task(self, state: _State) -> None:
        self.show(state)

    def show(self, state: _State) -> None:
        self.note(
            f"[{state.percent:3d}%] {state.method}, task {state.task}, step {state.steps}, "
            f"loss {state.loss}, left {duration(state.left)}"
        )

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class _Bar:
    """A bar of the whole job, kept alive by a thread of rich's while a step takes long."""

    def __init__(self, console: Console) -> None:
        whole = Column(no_wrap=True)
        self._bar = RichProgress(
            SpinnerColumn("line"),
            TextColumn("{task.fields[where]}", markup=False, table_column=whole),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("step {task.fields[steps]}", table_column=whole),
            TextColumn("loss {task.fields[loss]}", table_column=whole),
            TextColumn("left {task.fields[left]}", table_column=whole),
            console=console,
            expand=True,
            refresh_per_second=REFRESHES_PER_SECOND,
        )
        self._job = self._bar.add_task("", where=DASH, steps=DASH, loss=DASH, left=DASH)

    def open(self) -> None:
        self._bar.start()

    def close(self, state: _State, finished: bool) -> None:
        self.show(state)
        self._bar.stop()

    def begin_task(self, state: _State) -> None:
        self.show(state)

    def end_task(self, state: _State) -> None:
        self.show(state)

    def show(self, state: _State) -> None:
        self._bar.update(
            self._job,
            completed=state.done,
            total=max(state.total, 1),
            where=self._where(state),
            steps=state.steps,
            loss=state.loss,
            left=duration(state.left),
        )

    def _where(self, state: _State) -> str:
        """Method and task, both shortened to what the other columns and a bar leave free."""
        others = len("- step  loss 0.0000 left 00m00s") + len(state.steps) + 6 + 5
        room = max(self._bar.console.width - others, 20)
        method = shortened(state.method, max(room - len(state.task) - 1, room // 2))
        return f"{method} {shortened(state.task, room - len(method) - 1)}"

    def note(self, text: str) -> None:
        self._bar.console.print(Text(text))
