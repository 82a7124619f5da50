"""The loss of every step and the accuracies after every task, as scalars beside the run: `--scalars tensorboard`.

One folder per method and seed, `WORKDIR/scalars/METHOD/seed-N`. The step counts all updates of the stream. Tags:
`loss`; `accuracy/01 NAME`, ..., on each task; `accuracy_of_tasks_learnt`, their mean. Losses stay on the device until
a checkpoint, the end of a task, or `HELD` of them, so that logging does not wait for every step.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from experiments.config.run_config import Config
from experiments.report.progress import Loss, Progress
from experiments.streams.base import Stream
from share_jax.errors import InputError, message
from share_jax.runtime import processes

if TYPE_CHECKING:
    from experiments.report.event_file import EventFile, Scalar

FOLDER = "scalars"
HELD = 100
LOSS, MEAN = "loss", "accuracy_of_tasks_learnt"


@contextmanager
def logged(config: Config, progress: Progress, stream: Stream, method: str, seed: int) -> Iterator[Progress]:
    """The progress of one method and seed, logging to scalars too if the configuration says so.

    Raises:
        InputError: tensorboardX is not installed.
    """
    if config.scalars is None or not processes.primary():
        yield progress
        return
    try:
        from experiments.report.event_file import EventFile
    except ImportError as error:
        fix = "pip install tensorboardX, or leave the flag out"
        raise InputError(message("--scalars", got=error, expected="tensorboardX installed", fix=fix)) from error
    folder = config.workdir / FOLDER / method / f"seed-{seed}"
    names = tuple(task.name for task in stream.tasks)
    log = ScalarLog(progress, folder, names, config.steps, EventFile)
    try:
        yield log
    finally:
        log.close()


class ScalarLog:
    """A `Progress` that hands everything on to another one, and logs what it is told."""

    def __init__(
        self,
        inner: Progress,
        folder: Path,
        tasks: Sequence[str],
        steps: int,
        opener: "Callable[[Path, Callable[[Scalar], bool]], EventFile]",
    ) -> None:
        """`steps` are the updates of a task; the file is opened when there is something to write."""
        self._inner, self._folder, self._tasks, self._steps, self._opener = inner, folder, tasks, steps, opener
        self._number = self._task = 0
        self._held: list[tuple[int, Loss]] = []
        self._file: EventFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, *, method: str, task_index: int, task_count: int, task_name: str) -> None:
        """Names the task whose steps come next."""
        self._inner.begin(method=method, task_index=task_index, task_count=task_count, task_name=task_name)
        self._number = task_index * self._steps
        self._task = task_index if task_count > 1 else len(self._tasks) - 1

    def update(self, steps_done_delta: int = 1, loss: Loss = None) -> None:
        """Counts a step and keeps its loss."""
        self._number += steps_done_delta
        if loss is not None:
            self._held.append((self._number, loss))
        if len(self._held) >= HELD:
            self.saving()
        self._inner.update(steps_done_delta, loss)

    def skip(self, steps: int) -> None:
        """Counts steps that an earlier run logged."""
        self._number += steps
        self._inner.skip(steps)

    def note(self, text: str) -> None:
        """Shows a line of text."""
        self._inner.note(text)

    def saving(self) -> None:
        """Writes the losses that were kept, so that what a checkpoint has counted is in the log."""
        from experiments.report.event_file import Scalar

        held, self._held = self._held, []
        values = [(step, float(loss() if callable(loss) else loss)) for step, loss in held if loss is not None]
        self._write([Scalar(LOSS, step, value) for step, value in values])
        self._inner.saving()

    def scored(self, accuracies: Sequence[float | None]) -> None:
        """Writes the accuracies that are known, and the mean over the tasks learnt."""
        from experiments.report.event_file import Scalar

        self.saving()
        known = [(t, value) for t, value in enumerate(accuracies) if value is not None and not math.isnan(value)]
        learnt = [value for t, value in known if t <= self._task]
        found = [Scalar(f"accuracy/{t + 1:02d} {self._tasks[t]}", self._number, value) for t, value in known]
        if learnt:
            found.append(Scalar(MEAN, self._number, sum(learnt) / len(learnt)))
        self._write(found)
        self._inner.scored(accuracies)

    def close(self) -> None:
        """Closes the file. Losses since the last checkpoint are written too: a resumed run cuts them off again."""
        self.saving()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, scalars: "list[Scalar]") -> None:
        if not scalars:
            return
        if self._file is None:
            first = _place(scalars[0])
            self._file = self._opener(self._folder, lambda scalar: _place(scalar) < first)
        self._file.write(scalars)


def _place(scalar: "Scalar") -> tuple[int, bool]:
    """Where a scalar stands in a log: by step, and accuracies after the loss of theirs."""
    return scalar.step, scalar.tag != LOSS
