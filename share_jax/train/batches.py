"""What batches are made of: the shuffled order of an epoch, a pure function of its seeds, and padding with weight 0."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from share_jax.errors import InputError, message


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that cover all examples once, the last one padded.

    >>> steps_per_epoch(10, 4)
    3
    """
    return -(-examples // batch_size)


def order(examples: int, seed: int, task: int, epoch: int) -> np.ndarray:
    """The shuffled order of one epoch, (examples,) int64."""
    return np.random.default_rng([seed, task, epoch]).permutation(examples)


def padded(index: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """`index` padded to `batch_size` by its first, and weights, float32 (batch,), that are 0 for the padding.

    Raises:
      InputError: if `index` is empty or too long.
    """
    count = len(index)
    if not 0 < count <= batch_size:
        raise InputError(
            message(
                "examples in a batch", got=count, expected=f"1 to {batch_size}", fix="split the examples into batches"
            )
        )
    whole = np.concatenate([index, np.repeat(index[:1], batch_size - count)])
    return whole, (np.arange(batch_size) < count).astype(np.float32)


def as_labels(labels: np.ndarray) -> np.ndarray:
    """Labels in the type that steps take: float32 where they are numbers asked for, int32 where they are classes."""
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)


def pick(
    inputs: Mapping[str, np.ndarray], labels: np.ndarray, index: np.ndarray, batch_size: int, classes: int
) -> dict[str, Any]:
    """The examples at `index`, padded to `batch_size` with weight 0 so that the shape never changes.

    Args:
      inputs: arrays (examples, ...).
      labels: (examples,) integers, or floats where numbers are asked for.
      index: at most `batch_size` positions.
      batch_size: examples in the batch.
      classes: the task's number of classes.

    Returns:
      {"inputs": arrays (batch, ...), "labels": int32 or float32 (batch,), "weights": float32 (batch,), "classes": int32
      ()}

    Raises:
      InputError: if `index` is empty or too long.
    """
    places, weights = padded(index, batch_size)
    return {
        "inputs": {name: array[places] for name, array in inputs.items()},
        "labels": as_labels(labels[places]),
        "weights": weights,
        "classes": np.int32(classes),
    }


def eval_batches(
    inputs: Mapping[str, np.ndarray], labels: np.ndarray, *, batch_size: int, classes: int
) -> Iterator[dict[str, Any]]:
    """All examples once, in order."""
    for start in range(0, len(labels), batch_size):
        index = np.arange(start, min(start + batch_size, len(labels)))
        yield pick(inputs, labels, index, batch_size, classes)
