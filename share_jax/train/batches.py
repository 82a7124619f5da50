"""What batches are made of: the shuffled order of an epoch, a pure function of its seeds, and padding with weight 0;
and how batches are taken up again where an interrupted training left them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from share_jax.errors import InputError, message


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that cover all examples once, the last one padded.

    >>> steps_per_epoch(10, 4)
    3
    """
    return -(-examples // batch_size)


def order(examples: int, seed: int, task: int, epoch: int) -> np.ndarray:
    """The shuffled order of one epoch, (examples,) int64.

    Args:
        examples: how many there are.
        seed: of the run.
        task: the task's number.
        epoch: the epoch's number; each has another order.

    Example:
        >>> sorted(order(4, seed=0, task=1, epoch=0).tolist())
        [0, 1, 2, 3]
        >>> np.array_equal(order(4, seed=0, task=1, epoch=0), order(4, seed=0, task=1, epoch=0))
        True
    """
    return np.random.default_rng([seed, task, epoch]).permutation(examples)


def padded(index: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """`index` padded to `batch_size` by its first, and weights, float32 (batch,), that are 0 for the padding.

    Args:
        index: at most `batch_size` positions, (n,).
        batch_size: examples in the batch.

    Raises:
        InputError: if `index` is empty or too long.

    Example:
        >>> padded(np.array([5, 6]), 3)
        (array([5, 6, 5]), array([1., 1., 0.], dtype=float32))
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
        {"inputs": arrays (batch, ...), "labels": int32 or float32 (batch,), "weights": float32 (batch,), "classes":
        int32 ()}

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
    """All examples once, in order.

    Args:
        inputs: arrays (examples, ...) by name.
        labels: (examples,) integers, or floats where numbers are asked for.
        batch_size: examples in each batch; the last one is padded with weight 0.
        classes: the task's number of classes.

    Example:
        >>> inputs, labels = {"x": np.arange(5.0)}, np.array([0, 1, 0, 1, 1])
        >>> for batch in eval_batches(inputs, labels, batch_size=3, classes=2):
        ...     print(batch["inputs"]["x"], batch["weights"])
        [0. 1. 2.] [1. 1. 1.]
        [3. 4. 3.] [1. 1. 0.]
    """
    for start in range(0, len(labels), batch_size):
        index = np.arange(start, min(start + batch_size, len(labels)))
        yield pick(inputs, labels, index, batch_size, classes)


Position = Any
"""JSON from which batches go on: how many were taken, or what a stream of one's own calls its state. 0 is the start."""


class BatchStream(Protocol):
    """Batches in order, with a position. Left as a context, it ends what prepares them."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Any]: ...

    def state(self) -> Position:
        """The position of the batches that were not taken yet."""
        ...


OpenBatches = Callable[[Position], BatchStream]
"""Gives the batches that follow a position."""


class CountedBatches:
    """Batches of any iterable; the position is how many were taken."""

    def __init__(self, batches: Iterable[Any], taken: int = 0) -> None:
        """Passes over the first `taken` batches.

        Raises:
            InputError: if there are not as many.
        """
        self._iterator, self._taken = iter(batches), taken
        for number in range(taken):
            if next(self._iterator, self) is self:
                expected, fix = f"at least the {taken} that were taken before", "pass the same batches again"
                raise InputError(message("batches to go on with", got=number, expected=expected, fix=fix))

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be ended."""

    def __iter__(self) -> Iterator[Any]:
        """The batches."""
        for batch in self._iterator:
            self._taken += 1
            yield batch

    def state(self) -> Position:
        """How many batches were taken."""
        return self._taken


def opener(batches: Any) -> OpenBatches:
    """How batches are opened.

    Args:
        batches: any iterable, which is passed over up to a position, or an object whose `open(position)` gives a
            `BatchStream`: one that has random access, say, and goes on at once.

    Example:
        >>> with opener("abcd")(2) as stream:
        ...     print([(batch, stream.state()) for batch in stream])
        [('c', 3), ('d', 4)]
    """
    own = getattr(batches, "open", None)
    return own if own is not None else lambda position: CountedBatches(batches, position)
