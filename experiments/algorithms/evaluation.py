"""How a task's test examples are answered, under each protocol; the rows of the accuracy matrix come from here.

- task-incremental (`ById`): by the task's own slot.
- domain- and class-incremental, with one head for all tasks (`OneHead`): by the model as it is, over the outputs that
  there are so far.
- domain- and class-incremental, with a slot and a head per task (`Routed`): a router (`share_jax.bank.router`) over the
  pooled vectors of the frozen base model chooses the slot of each example among the tasks learnt so far; the labels of
  the training examples are known when a task is learnt, and nothing of a test example but its inputs.

A method needs to give no more than a `Predict`, so every method that answers by slots is answered alike.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from experiments.algorithms.job import Job
from experiments.algorithms.objective import of_tokens
from experiments.algorithms.plan import Plan
from experiments.algorithms.scoring import Score, score, score_split
from experiments.algorithms.token_tests import further_tests, routed_tests
from experiments.backbones.backbone import with_outputs
from experiments.streams.protocols import CLASS, TASK, offsets, one_head, outputs
from share_jax.bank.router import Router, add_task, empty_router, route, routing_rule
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.checkpoint import Checkpoint

Predict = Callable[[int, Mapping[str, np.ndarray]], np.ndarray]
"""(number of a task, inputs) to the logits, (examples, width of the head), of the slot that answers for it now."""

Accuracies = tuple[float | None, ...]
"""One for each task of the stream; None where it is not evaluated."""


@dataclass(frozen=True)
class Row:
    """How the tasks are answered after one of them was learnt.

    Attributes:
        accuracies: a row of the accuracy matrix.
        digests: of the test logits of each task so far, by the slot that is the task's own; of the outputs that there
            were when it was learnt.
        found: what else is worth keeping, JSON.
    """

    accuracies: Accuracies
    digests: tuple[str, ...]
    found: dict[str, Any] = field(default_factory=dict)


class ById:
    """The task's id is given: each task is answered by its own slot.

    A task of tokens is not answered before it is learnt: its texts cost the most there is, and the method `frozen` is
    how the model answers without any training. FWT is undefined then.
    """

    starts: tuple[int, ...] = ()
    """The first output of each task in the head that all tasks train, where that grows with them."""
    grows: bool = False
    """Whether outputs come with the tasks."""

    def __init__(self, job: Job, own_slots: bool = False) -> None:
        """Takes the stream from the job; with `own_slots`, no later task has changed what answers for a task."""
        self.job, self.own_slots = job, own_slots
        self.tasks = job.stream.tasks
        self.ahead = 0 if of_tokens(job.stream) else 1

    def untrained(self, predict: Predict) -> Accuracies:
        """The accuracies of the fresh model; undefined before there are the outputs."""
        if self.grows or not self.ahead:
            return self._padded([])
        return tuple(self._score(predict, j).accuracy for j in range(len(self.tasks)))

    def restored(self, store: Checkpoint) -> Router | None:
        """The router as a checkpoint has it, if one is needed."""
        return None

    def learnt(self, router: Router | None, index: int) -> Router | None:
        """The router once it knows one more task."""
        return router

    def row(self, predict: Predict, index: int, router: Router | None) -> Row:
        """How the tasks are answered once task `index` is learnt; the next task is too, before it is learnt."""
        values = [self._values(predict, j) for j in range(min(index + 1 + self.ahead, len(self.tasks)))]
        scores = [self._scored(j, each) for j, each in enumerate(values)]
        found = {}
        if index == len(self.tasks) - 1 and of_tokens(self.job.stream):
            tests, right = further_tests(self.tasks, predict, values)
            routed = routed_tests(self.job, predict, values) if self.own_slots else {}
            found = {"tests": {**tests, **routed}, "right": right}
        return Row(self._padded([each.accuracy for each in scores]), tuple(each.digest for each in scores), found)

    def findings(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What is worth telling at the end of the stream, of what each `row` found."""
        return dict(rows[-1].get("tests", {})) if rows else {}

    def one_head_counts(self, size: int) -> dict[str, int]:
        """How one head of so many parameters for all tasks is counted: fields of `ParameterCounts`."""
        return {"head_sets": 1}

    def _score(self, predict: Predict, j: int) -> Score:
        return self._scored(j, self._values(predict, j))

    def _values(self, predict: Predict, j: int) -> np.ndarray:
        values = predict(j, self.tasks[j].test.inputs)
        return values if self.tasks[j].kind == "tokens" else values[:, : self.tasks[j].outputs]

    def _scored(self, j: int, values: np.ndarray) -> Score:
        return score_split(values, self.tasks[j].test, self.tasks[j].metric)

    def _padded(self, accuracies: Sequence[float | None]) -> Accuracies:
        return (*accuracies, *[None] * (len(self.tasks) - len(accuracies)))


class OneHead(ById):
    """One head and no id: the logits are those of the outputs that there are so far."""

    def __init__(self, job: Job, grows: bool) -> None:
        """Takes a stream as `one_head` makes it; `grows` if outputs do, and then a task is not asked before its own."""
        super().__init__(job)
        self.grows = grows
        self.starts = (0, *(len(task.classes) for task in self.tasks[:-1])) if grows else ()

    def one_head_counts(self, size: int) -> dict[str, int]:
        """A head that grows by a task's outputs counts as one of that size per task."""
        return {"heads_per_task": size // len(self.tasks)} if self.grows else super().one_head_counts(size)

    def row(self, predict: Predict, index: int, router: Router | None) -> Row:
        """How the tasks are answered once task `index` is learnt."""
        if not self.grows:
            return super().row(predict, index, router)
        seen = len(self.tasks[index].classes)
        accuracies, digests = [], []
        for j in range(index + 1):
            test, own = self.tasks[j].test, len(self.tasks[j].classes)
            values = predict(j, test.inputs)
            accuracies.append(score(values[:, :seen], test.labels).accuracy)
            digests.append(score(values[:, :own], test.labels).digest)
        return Row(self._padded(accuracies), tuple(digests))


class Routed(ById):
    """A slot and a head per task and no id: a router chooses the slot of each example, among the tasks so far.

    After the last task the same is told with the id given, and without a router: by the last task's slot where the
    outputs of all tasks are the same, else by the highest logit of all heads side by side.
    """

    def __init__(self, job: Job) -> None:
        """Takes the stream and the frozen model from the job."""
        super().__init__(job)
        self.offsets, self.grows = offsets(job.stream), job.stream.protocol == CLASS

    def restored(self, store: Checkpoint) -> Router | None:
        """The saved router if it knows exactly the saved tasks; else one made anew of their training examples."""
        saved = store.manifest.router
        if saved is not None and tuple(saved["tasks"]) == store.names:
            return ckpt.load_router(store)
        router = None
        for index in range(len(store.names)):
            router = self.learnt(router, index)
        return router

    def learnt(self, router: Router | None, index: int) -> Router:
        """The router once it knows one more task, class by class."""
        task = self.tasks[index]
        features = self._pooled(task.train)
        known = empty_router(features.shape[1]) if router is None else router
        return add_task(known, task.name, features, task.train.labels)

    def row(self, predict: Predict, index: int, router: Router | None) -> Row:
        """How the tasks are answered once task `index` is learnt."""
        if router is None:
            raise ValueError("a routed row needs a router")
        asked = range(index + 1 if self.grows else min(index + 2, len(self.tasks)))
        chosen = self.chosen(router, index, asked)
        own = [self._own(predict, j) for j in asked]
        answers = self.answers(predict, chosen, own)
        found = {
            "router_accuracy": [float(np.mean(chosen[j] == j)) for j in range(index + 1)],
            "with_task_id": [score(own[j], self.tasks[j].test.labels).accuracy for j in range(index + 1)],
        }
        if index == len(self.tasks) - 1:
            found["without_router"] = self._without(predict, own)
        digests = tuple(score(own[j], self.tasks[j].test.labels).digest for j in asked)
        return Row(self._padded([self._right(j, answers[j]) for j in asked]), digests, found)

    def findings(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The router's accuracy after the last task, and ACC with the id given and without the router."""
        last = rows[-1]
        return {
            "router_accuracy": float(np.mean(last["router_accuracy"])),
            "router_accuracy_per_task": last["router_accuracy"],
            "router_accuracy_by_tasks_seen": [float(np.mean(row["router_accuracy"])) for row in rows],
            "acc_with_task_id": float(np.mean(last["with_task_id"])),
            "acc_without_router": float(np.mean(last["without_router"])),
        }

    def chosen(self, router: Router, index: int, asked: Iterable[int]) -> list[np.ndarray]:
        """The slot that is chosen for each test example of the tasks asked, among those of the tasks up to `index`."""
        rule = routing_rule(router, [task.name for task in self.tasks[: index + 1]])
        return [np.asarray(route(rule, self._pooled(self.tasks[j].test))) for j in asked]

    def answers(self, predict: Predict, chosen: list[np.ndarray], own: list[np.ndarray]) -> list[np.ndarray]:
        """The output that each example of each task is answered with, by the slot that was chosen for it.

        Args:
            predict: how the slots answer.
            chosen: as of `chosen`.
            own: logits of each task's examples by its own slot, which are at hand; taken where it was chosen.
        """
        answers = [self.offsets[j] + values.argmax(axis=1) for j, values in enumerate(own)]
        names = self.tasks[0].test.inputs
        for slot in range(1 + max(int(ids.max()) for ids in chosen)):  # all that other tasks have sent to this slot
            astray = [(j, np.flatnonzero(ids == slot)) for j, ids in enumerate(chosen) if j != slot]
            astray = [(j, places) for j, places in astray if len(places)]
            if not astray:
                continue
            inputs = {n: np.concatenate([self.tasks[j].test.inputs[n][places] for j, places in astray]) for n in names}
            values = predict(slot, inputs)[:, : len(self.tasks[slot].classes)]
            told = iter(np.split(values.argmax(axis=1), np.cumsum([len(places) for _, places in astray])[:-1]))
            for j, places in astray:
                answers[j][places] = self.offsets[slot] + next(told)
        return answers

    def _pooled(self, split: Any) -> np.ndarray:
        return self.job.features.of(self.job.backbone, split, self.job.preemption.point)

    def _own(self, predict: Predict, j: int) -> np.ndarray:
        """Logits of a task's test examples by its own slot."""
        task = self.tasks[j]
        return predict(j, task.test.inputs)[:, : len(task.classes)]

    def _without(self, predict: Predict, own: list[np.ndarray]) -> list[float]:
        last, accuracies = len(self.tasks) - 1, []
        for j, task in enumerate(self.tasks):
            slots = range(len(self.tasks)) if self.grows else [last]
            values = [
                own[j] if k == j else predict(k, task.test.inputs)[:, : len(self.tasks[k].classes)] for k in slots
            ]
            accuracies.append(self._right(j, np.concatenate(values, axis=1).argmax(axis=1)))
        return accuracies

    def _right(self, j: int, answers: np.ndarray) -> float:
        return float(np.mean(answers == self.offsets[j] + self.tasks[j].test.labels))


def by_slots(job: Job) -> ById:
    """How a method with a slot and a head per task is answered."""
    return ById(job, own_slots=True) if job.stream.protocol == TASK else Routed(job)


def arranged(job: Job, plan: Plan) -> tuple[Job, Plan, ById]:
    """The job and plan as the stream's protocol has them, and how they are answered.

    Without a task id, a method in which each task answers with an adapter of its own keeps a head of its own too, and
    is routed; in every other one, all tasks train one head, whatever its heads are when the id is given.
    """
    if plan.carry == "nothing":
        return job, plan, by_slots(job)
    if job.stream.protocol == TASK:
        return job, plan, ById(job)
    grows = job.stream.protocol == CLASS
    job = with_one_head(job)
    return job, replace(plan, heads="one"), OneHead(job, grows)


def with_one_head(job: Job) -> Job:
    """The job with one head for all outputs, and the stream as that learns it."""
    return replace(job, stream=one_head(job.stream), backbone=with_outputs(job.backbone, outputs(job.stream)[-1]))
