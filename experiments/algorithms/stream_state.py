"""How far a stream has been learnt, and the way through it: what all methods that learn task after task share."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from experiments.algorithms.evaluation import Accuracies, ById, Row
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.task_seconds import with_tasks
from share_jax.bank.router import Router
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.errors import FormatError, message


@dataclass(frozen=True)
class StreamState:
    """How far a stream has been learnt.

    Attributes:
        store: the checkpoint.
        bank: what has been learnt.
        memory: what the plan's extension remembers.
        untrained: accuracy of the fresh model on every task.
        infos: for each learnt task, what is noted beside it in the checkpoint.
        router: chooses the slot of each example, where no task id is given.
        seconds: wall time by phase.
    """

    store: Checkpoint
    bank: Any
    memory: dict[str, Any] = field(default_factory=dict)
    untrained: Accuracies = ()
    infos: tuple[Mapping[str, Any], ...] = ()
    router: Router | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Accuracies, ...]:
        """For each learnt task, the accuracies after it, null where not evaluated."""
        return tuple(tuple(info["row"]) for info in self.infos)

    @property
    def digests(self) -> tuple[tuple[str, ...], ...]:
        """For each learnt task, the digests of the test logits of every task evaluated after it."""
        return tuple(tuple(info["digests"]) for info in self.infos)

    @property
    def found(self) -> tuple[dict[str, Any], ...]:
        """For each learnt task, what else its row found."""
        return tuple(info.get("found", {}) for info in self.infos)

    def info(self, row: Row, seconds: Mapping[str, float], **own: Any) -> dict[str, Any]:
        """What is noted beside the next task: how the tasks are answered after it, and what the method adds."""
        found = {"found": row.found} if row.found else {}
        return {"row": row.accuracies, **own, "seconds": dict(seconds), "untrained": self.untrained, **found}

    def outcome(self, answers: ById, params: Mapping[str, Any], sizes: Mapping[str, int], **extra: Any) -> Outcome:
        """What was found, once every task is learnt.

        Args:
            answers: how tasks were answered.
            params: parameter counts by name.
            sizes: bytes by name.
            extra: further findings.
        """
        return Outcome(
            accuracy=np.array([[np.nan if a is None else a for a in row] for row in self.rows]),
            untrained=np.array(self.untrained, np.float64),
            seconds=with_tasks(self.seconds, self.store),
            params=params,
            bytes=sizes,
            extra={**extra, **answers.findings(self.found)},
        )


def restored(job: Job, store: Checkpoint, answers: ById, bank: Any, memory: dict[str, Any]) -> StreamState:
    """The state of a checkpoint that has tasks.

    Args:
        job: whose progress is told.
        store: the checkpoint.
        answers: how tasks are answered.
        bank: the tasks.
        memory: what the plan's extension remembers of them.

    Raises:
        FormatError: the stream has other tasks now.
    """
    names = tuple(task.name for task in job.stream.tasks)[: len(store.names)]
    if names != store.names:
        got, fix = f"tasks {', '.join(names)}", "restore the tasks and their order, or begin anew with --overwrite"
        what, expected = f"stream of {job.folder}", f"{', '.join(store.names)}, which are learnt"
        raise FormatError(message(what, got=got, expected=expected, fix=fix))
    infos = tuple(store.info(name) for name in store.names)
    job.progress.skip(job.config.steps * len(infos))
    untrained, seconds = tuple(infos[0]["untrained"]), dict(infos[-1]["seconds"])
    return StreamState(store, bank, memory, untrained, infos, answers.restored(store), seconds)


def lengthened(seconds: Mapping[str, float], **phases: float) -> dict[str, float]:
    """Wall time by phase with what a task added.

    >>> lengthened({"train": 1.0}, train=2.0, evaluate=0.5)
    {'train': 3.0, 'evaluate': 0.5}
    """
    return {**seconds, **{phase: seconds.get(phase, 0.0) + more for phase, more in phases.items()}}


class StreamLearner(Protocol):
    """A method on one job."""

    job: Job

    def restored(self) -> StreamState:
        """The state as the job's checkpoint has it; the accuracies of the fresh model if it has none."""
        ...

    def learn_next(self, course: StreamState, /) -> StreamState:
        """Learns one more task, evaluates it and those before it, and saves it."""
        ...

    def outcome(self, course: StreamState, /) -> Outcome:
        """What was found, once every task is learnt."""
        ...


def learn_stream(learner: StreamLearner, began: float) -> Outcome:
    """Learns every task of the job's stream in order, evaluating and saving after each.

    A run that was stopped goes on from its last checkpoint, with the same batches and the same result.

    Args:
        learner: the method on the job.
        began: when it began to be prepared, by `time.perf_counter`.
    """
    course = learner.restored()
    course = replace(course, seconds={"prepare": time.perf_counter() - began, **course.seconds})
    while len(course.infos) < len(learner.job.stream.tasks):
        course = learner.learn_next(course)
    return learner.outcome(course)
