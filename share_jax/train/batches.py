"""Batches as a pure function of (seed, task, step), so that a data position is one whole number."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from share_jax.errors import InputError, line


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that cover all examples once, the last one padded.

    >>> steps_per_epoch(10, 4)
    3
    """
    return -(-examples // batch_size)


def order(examples: int, seed: int, task: int, epoch: int) -> np.ndarray:
    """The shuffled order of one epoch, (examples,) int64."""
    return np.random.default_rng([seed, task, epoch]).permutation(examples)


def pick(
    inputs: Mapping[str, np.ndarray], labels: np.ndarray, index: np.ndarray, batch_size: int, classes: int
) -> dict[str, Any]:
    """The examples at `index`, padded to `batch_size` with weight 0 so that the shape never changes.

    Args:
      inputs: arrays (examples, ...).
      labels: (examples,) integers.
      index: at most `batch_size` positions.
      batch_size: examples in the batch.
      classes: the task's number of classes.

    Returns:
      {"inputs": arrays (batch, ...), "labels": int32 (batch,), "weights": float32 (batch,), "classes": int32 ()}

    Raises:
      InputError: if `index` is empty or too long.
    """
    count = len(index)
    if not 0 < count <= batch_size:
        raise InputError(
            line(
                "examples in a batch", got=count, expected=f"1 to {batch_size}", mend="split the examples into batches"
            )
        )
    padded = np.concatenate([index, np.repeat(index[:1], batch_size - count)])
    return {
        "inputs": {name: array[padded] for name, array in inputs.items()},
        "labels": labels[padded].astype(np.int32),
        "weights": (np.arange(batch_size) < count).astype(np.float32),
        "classes": np.int32(classes),
    }


def train_batches(
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    batch_size: int,
    classes: int,
    seed: int,
    task: int,
    steps: int,
    start: int = 0,
) -> Iterator[dict[str, Any]]:
    """Batches `start` to `steps` of a task, epoch after epoch; the same from any start.

    Raises:
      InputError: if the task has no examples.
    """
    if not len(labels):
        raise InputError(line("examples of the task", got=0, expected="at least 1", mend="check the stream's split"))
    per_epoch = steps_per_epoch(len(labels), batch_size)
    for step in range(start, steps):
        epoch, position = divmod(step, per_epoch)
        index = order(len(labels), seed, task, epoch)[position * batch_size : (position + 1) * batch_size]
        yield pick(inputs, labels, index, batch_size, classes)


def eval_batches(
    inputs: Mapping[str, np.ndarray], labels: np.ndarray, *, batch_size: int, classes: int
) -> Iterator[dict[str, Any]]:
    """All examples once, in order."""
    for start in range(0, len(labels), batch_size):
        index = np.arange(start, min(start + batch_size, len(labels)))
        yield pick(inputs, labels, index, batch_size, classes)
