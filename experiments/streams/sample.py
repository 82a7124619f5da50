"""Seeded subsets of labelled examples."""

import numpy as np

from experiments.streams.base import Split
from share_jax.errors import InputError, message


def check_limit(limit: int | None, classes: int, what: str, fix: str = "raise the limit") -> None:
    """Refuses a limit that leaves a class without an example.

    Raises:
        InputError: it is below the number of classes.
    """
    if limit is not None and limit < classes:
        raise InputError(message(what, got=limit, expected=f"at least {classes}, one for each class", fix=fix))


def sample(classes: list[list[str]], limit: int | None, keys: list[list[int]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Shuffled texts and labels of one split, `limit` texts shared equally among its classes.

    Args:
        classes: the texts of each class.
        limit: most texts in all; None is all of them.
        keys: a seed for each class's shuffle; the first also orders the whole.

    Raises:
        InputError: `limit` is below the number of classes.
    """
    check_limit(limit, len(classes), "texts of a task")
    texts: list[str] = []
    labels: list[int] = []
    for label, (every, key) in enumerate(zip(classes, keys, strict=True)):
        share = len(every) if limit is None else (limit + len(classes) - 1 - label) // len(classes)
        order = np.random.default_rng(key).permutation(len(every))
        texts += [every[index] for index in order[:share]]
        labels += [label] * min(share, len(every))
    mixed = np.random.default_rng([*keys[0], 7]).permutation(len(texts))
    return tuple(texts[index] for index in mixed), np.array(labels, np.int32)[mixed]


def subset(split: Split, limit: int | None, key: list[int]) -> Split:
    """A shuffled split, `limit` examples shared equally among the classes that it has.

    A smaller limit takes examples that a larger one takes too.

    Args:
        split: the examples.
        limit: most examples in all; None is all of them.
        key: seeds the shuffles.

    Raises:
        InputError: `limit` is below the number of classes.
    """
    classes = np.unique(split.labels)
    check_limit(limit, len(classes), "examples of a task")
    chosen = []
    for number, label in enumerate(classes):
        share = len(split) if limit is None else (limit + len(classes) - 1 - number) // len(classes)
        places = np.flatnonzero(split.labels == label)
        chosen.append(np.random.default_rng([*key, int(label)]).permutation(places)[:share])
    mixed = np.random.default_rng([*key, len(classes), 7]).permutation(np.concatenate(chosen))
    return Split({name: array[mixed] for name, array in split.inputs.items()}, split.labels[mixed])


def limited(train: Split, test: Split, limits: tuple[int | None, int | None], key: list[int]) -> tuple[Split, Split]:
    """`subset` of both sides of a task: the limits of (train, test)."""
    return subset(train, limits[0], [*key, 0]), subset(test, limits[1], [*key, 1])


def balanced(labels: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Places of at most `limit` examples, drawn at random and shared equally among the classes, in rising order.

    >>> balanced(np.array([0, 0, 0, 0, 1]), 2, np.random.default_rng(0)).tolist()[-1]
    4
    """
    shuffled = rng.permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        turn[own] = np.arange(len(own))
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:limit])
