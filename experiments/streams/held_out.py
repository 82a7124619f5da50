"""A stream that is tested on a part of its training examples: what rates and strengths are chosen on."""

from dataclasses import replace

import numpy as np

from experiments.streams.base import Split, Stream, Task

SHARE = 0.2


def held_out(stream: Stream, seed: int) -> Stream:
    """Every task with a fifth of its training examples as its test, on which it does not train; its own test is unused.

    Of each class a fifth is drawn, rounded to the nearest, so that a class of one or two examples keeps them all.

    Args:
        stream: any.
        seed: of the draw; each task has a draw of its own.
    """
    return replace(stream, tasks=tuple(_task(task, seed, number) for number, task in enumerate(stream.tasks)))


def _task(task: Task, seed: int, number: int) -> Task:
    tested = drawn(task.train.labels, len(task.classes), np.random.default_rng((seed, number)))
    return replace(task, train=_part(task.train, ~tested), test=_part(task.train, tested))


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
    return Split({name: array[rows] for name, array in split.inputs.items()}, split.labels[rows])
