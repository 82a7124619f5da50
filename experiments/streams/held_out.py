"""A stream that is tested on a part of its training examples: what rates and strengths are chosen on."""

from dataclasses import replace

import numpy as np

from experiments.streams.base import Split, Stream, Task
from share_jax.errors import InputError, message

SHARE = 0.2


def held_out(stream: Stream, seed: int) -> Stream:
    """Every task with a fifth of its training examples as its test, on which it does not train; its own test is unused.

    Of each class a fifth is drawn, rounded to the nearest, so that a class of one or two examples keeps them all.

    Args:
        stream: any.
        seed: of the draw; each task has a draw of its own.

    Raises:
        InputError: a task chooses among answers, of which its training examples have the right one alone.
    """
    if many := [task.name for task in stream.tasks if task.test.options > 1]:
        what, fix = f"held-out examples of task {many[0]!r}", "leave --held-out out"
        raise InputError(message(what, got="the right answer alone", expected="all allowed ones", fix=fix))
    return replace(stream, tasks=tuple(_task(task, seed, number) for number, task in enumerate(stream.tasks)))


def _task(task: Task, seed: int, number: int) -> Task:
    tested = drawn(task.train.labels, len(task.classes), np.random.default_rng((seed, number)))
    left = {"further": {}, "checked": {}, "few_shot": None, "sample": None}  # all of the task's own test
    return replace(task, train=_part(task.train, ~tested), test=_part(task.train, tested), **left)


def drawn(labels: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Which examples (N,) are tested on: a fifth of each class, or of all where there are no classes.

    Args:
        labels: (N,).
        classes: how many there are.
        rng: draws.
    """
    groups = [np.flatnonzero(labels == c) for c in range(classes)] or [np.arange(len(labels))]
    chosen = np.concatenate([rng.permutation(group)[: round(SHARE * len(group))] for group in groups])
    return np.isin(np.arange(len(labels)), chosen)


def _part(split: Split, chosen: np.ndarray) -> Split:
    rows = np.flatnonzero(chosen)
    own = {name: array[rows] for name, array in split.inputs.items()}
    nbytes = None if split.nbytes is None else split.nbytes[rows]
    return replace(split, inputs=own, labels=split.labels[rows], nbytes=nbytes)
