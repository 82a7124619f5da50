"""Seeded subsets of labelled texts."""

import numpy as np

from share_jax.errors import InputError, line


def sample(classes: list[list[str]], limit: int | None, keys: list[list[int]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Shuffled texts and labels of one split, `limit` texts shared equally among its classes.

    Args:
        classes: the texts of each class.
        limit: most texts in all; None is all of them.
        keys: a seed for each class's shuffle; the first also orders the whole.

    Raises:
        InputError: `limit` is below the number of classes.
    """
    if limit is not None and limit < len(classes):
        expected = f"at least {len(classes)}, one for each class"
        raise InputError(line("texts of a task", got=limit, expected=expected, mend="raise the limit"))
    texts: list[str] = []
    labels: list[int] = []
    for label, (every, key) in enumerate(zip(classes, keys, strict=True)):
        share = len(every) if limit is None else (limit + len(classes) - 1 - label) // len(classes)
        order = np.random.default_rng(key).permutation(len(every))
        texts += [every[index] for index in order[:share]]
        labels += [label] * min(share, len(every))
    mixed = np.random.default_rng([*keys[0], 7]).permutation(len(texts))
    return tuple(texts[index] for index in mixed), np.array(labels, np.int32)[mixed]
