"""Batches of a task as a Grain dataset with random access, and the iterator whose state a checkpoint keeps.

    batches = task_pipeline(source, batch_size=32, classes=10, seed=0, task=3, steps=500)
    batch = batches.dataset[17]                # a function of (seed, task, step) and of nothing else
    with batches.open(prefetch=2) as stream:   # the same batches in order, prepared ahead by threads
        for batch in stream:
            ...
            state = stream.state()             # JSON: the position, and of what
    batches.open(state)                        # goes on with the next batch, to the bit

`dataset` is a `grain.MapDataset`: it can be mapped further. What is prefetched and not yet taken does not count for the
state. Every host makes the same global order and reads its own rows, so the global batch, and with it the loss, does
not depend on the number of hosts, and a state that was saved by one host is that of any other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import grain
import numpy as np

from experiments.data.batch_order import LEARNT, Buckets, Order, Shard
from experiments.data.sources import Source
from share_jax.errors import FormatError, InputError, message
from share_jax.train.batches import as_labels, padded

Batch = dict[str, Any]

THREADS = 2
"""At most so many threads prepare batches ahead."""


class _Batches:
    """A Grain source whose element `step` is a batch."""

    def __init__(self, source: Source, order: Order, classes: int, steps: int, rows: slice) -> None:
        self._source, self.order, self._classes, self._steps, self._rows = source, order, classes, steps, rows

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Batch:
        return self.make(*self.order.batch(int(index)))

    def make(self, index: np.ndarray, width: int | None) -> Batch:
        """The batch of the examples at `index`, with the host's rows alone and texts cut to `width`."""
        places, weights = padded(index, self.order.batch_size)
        inputs, labels = self._source.take(places[self._rows])
        if self._classes and not 0 <= labels.min() <= labels.max() < self._classes:
            got, expected = f"{labels.min()} to {labels.max()}", f"0 to {self._classes - 1}"
            raise InputError(message("labels of a batch", got=got, expected=expected, fix="number the classes from 0"))
        if width is not None and self.order.buckets is not None:
            cut = {name: np.ascontiguousarray(inputs[name][:, :width]) for name in self.order.buckets.inputs}
            inputs = {**inputs, **cut}
            if self.order.buckets.learnt is not None:
                most = self.order.buckets.learnt[self.order.buckets.lengths.index(width)]
                inputs |= {name: np.ascontiguousarray(inputs[name][:, :most]) for name in LEARNT}
                labels = np.ascontiguousarray(labels[:, :most])
        return {
            "inputs": inputs,
            "labels": as_labels(labels),
            "weights": weights[self._rows],
            "classes": np.int32(self._classes),
        }


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The train batches of one task.

    Attributes:
        dataset: element `step` is the batch of that step: {"inputs": arrays (rows, ...), "labels": int32 or float32
            (rows,), "weights": float32 (rows,), 0 for padding, "classes": int32 ()}; rows is batch size / hosts.
        order: which examples are in it.
        sample: a batch of the task's first examples, cut to a length; None where there are no buckets.
    """

    dataset: grain.MapDataset
    order: Order
    sample: Callable[[int | None], Batch]

    @property
    def widths(self) -> tuple[int | None, ...]:
        """The lengths that batches can have; (None,) without buckets."""
        buckets = self.order.buckets
        if buckets is None:
            return (None,)
        return tuple(buckets.lengths[place] for place in np.unique(buckets.of(np.arange(self.order.examples))))

    def map(self, change: Callable[[Batch], Batch]) -> "Pipeline":
        """The pipeline with every batch changed, in the threads that prepare them."""
        return replace(self, dataset=self.dataset.map(change), sample=lambda width: change(self.sample(width)))

    def map_numbered(self, change: Callable[[int, Batch], Batch]) -> "Pipeline":
        """The same with a change that is also told the number of the step, from 0."""

        def sample(width: int | None) -> Batch:
            return change(0, self.sample(width))

        return replace(self, dataset=self.dataset.map_with_index(change), sample=sample)

    def open(self, state: Mapping[str, Any] | int = 0, *, prefetch: int = 2) -> "Stream":
        """An iterator from a state, or from a step, to the last step.

        Args:
            state: of `Stream.state`, or a number of steps that are done.
            prefetch: batches that are prepared ahead by threads; 0 prepares each when it is asked for.

        Raises:
            InputError: the state is of other batches, or beyond their end.
        """
        return Stream(self, state, prefetch)


class Stream(Iterator[Batch]):
    """Batches in order, with a state. Close it, or use it in a `with`, to end its threads."""

    def __init__(self, pipeline: Pipeline, state: Mapping[str, Any] | int, prefetch: int) -> None:
        """Starts at a state; see `Pipeline.open`."""
        self._identity = pipeline.order.identity()
        steps = len(pipeline.dataset)
        done = _position(state, self._identity)
        if not 0 <= done <= steps:
            fix = "raise the number of steps, or start the task anew"
            raise InputError(message("steps done in the input's state", got=done, expected=f"0 to {steps}", fix=fix))
        options = grain.ReadOptions(num_threads=min(prefetch, THREADS), prefetch_buffer_size=prefetch)
        self._iterator = iter(pipeline.dataset.to_iter_dataset(options))
        self._iterator.set_state({"next_index": done})

    def __next__(self) -> Batch:
        """The next batch."""
        return next(self._iterator)

    def state(self) -> dict[str, Any]:
        """JSON from which `Pipeline.open` gives the batches that were not yet taken."""
        return {**self._iterator.get_state(), **self._identity}

    def close(self) -> None:
        """Ends the threads; no batch can be taken after it."""
        self._iterator.close()

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes."""
        self.close()


def _position(state: Mapping[str, Any] | int, identity: Mapping[str, Any]) -> int:
    if isinstance(state, int):
        return state
    if "next_index" not in state:
        fix = "pass what Stream.state returned"
        raise FormatError(message("input's state", got=sorted(state), expected="a next_index", fix=fix))
    for name in sorted({*identity, *state} - {"next_index"}):
        if state.get(name) != identity.get(name):
            fix = "resume with the data and settings that it was saved with"
            got = state.get(name)
            raise InputError(message(f"{name} in the input's state", got=got, expected=identity.get(name), fix=fix))
    return int(state["next_index"])


def task_pipeline(
    source: Source,
    *,
    batch_size: int,
    classes: int,
    seed: int,
    task: int,
    steps: int,
    buckets: Buckets | None = None,
    shard: Shard = Shard(),  # noqa: B008  frozen
) -> Pipeline:
    """The first `steps` batches of a task, epoch after epoch, each a function of (seed, task, step).

    Args:
        source: of the task's examples, whole on every host.
        batch_size: of the global batch; the last of an epoch is padded with weight 0, so that the shape never changes.
        classes: of the task; 0 where it asks for numbers, or where it is set later, by `Pipeline.map`.
        seed: of the shuffle.
        task: index of the task.
        steps: batches.
        buckets: lengths that batches of texts are cut to.
        shard: this host's part of each batch.

    Raises:
        InputError: no examples, fewer examples than hosts, or a batch that the hosts do not divide.
    """
    order = Order(len(source), batch_size, seed, task, buckets)
    if shard.count > len(source):
        expected, fix = f"at most {len(source)}, the examples of the task", "use fewer hosts or more examples"
        raise InputError(message("hosts", got=shard.count, expected=expected, fix=fix))
    made = _Batches(source, order, classes, steps, shard.rows(batch_size))
    first = np.arange(min(batch_size, len(source)))
    return Pipeline(grain.MapDataset.source(made), order, lambda width: made.make(first, width))
