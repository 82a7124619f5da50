"""Batches of examples in tokens: shuffled in every epoch, texts of like length beside each other."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from share_jax.errors import InputError, message
from share_jax.train.batches import CountedBatches, Position, order, padded, steps_per_epoch
from share_jax.train.hidden_rows import HiddenRows
from share_jax.train.token_rows import TokenRows, on_grid, token_arrays


@dataclass(frozen=True, eq=False)
class TokenBatches:
    """The batches of a task, a pure function of what is given here; `Learner.learn` goes on from any of them.

    Attributes:
        rows: the examples.
        batch_size: examples in a batch; what fills it up has weight 0.
        seed: of the order.
        task: the task's number, which goes into the order.
        epochs: how often each example is seen.
        hidden: what a frozen prefix makes of each example, (N, longest, d) or `HiddenRows`, in place of its token ids.
        training: settings of the training that takes the batches, by name: it goes on with the same ones alone.
    """

    rows: TokenRows
    batch_size: int
    seed: int = 0
    task: int = 0
    epochs: int = 1
    hidden: np.ndarray | HiddenRows | None = None
    training: Mapping[str, float | str] = field(default_factory=dict)
    _epoch: dict[int, list[np.ndarray]] = field(init=False, repr=False, default_factory=dict)

    def __len__(self) -> int:
        """Steps in all."""
        return self.epochs * steps_per_epoch(len(self.rows), self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All batches in order."""
        return iter(self.batch(step) for step in range(len(self)))

    def open(self, position: Position) -> CountedBatches:
        """The batches from a position on, without computing those before it.

        Raises:
            InputError: the position is one of other batches, or of a training with other settings.
        """
        if isinstance(position, Mapping):
            known = self.identity()
            saved = {name: position.get(name) for name in known} | {
                name: position.get(name, value)
                for name, value in self.training.items()  # older ones lack them
            }
            if changed := [name for name, value in known.items() if value != saved[name]]:
                name, fix = changed[0], "go on with the same examples and settings, or start anew (--restart)"
                what = name if name in self.training else f"{name} of the batches"
                got, expected = known[name], saved[name]
                if name == "tokens_crc32":
                    what, got, expected = "examples", "others", "those that this training began with"
                raise InputError(message(what, got=got, expected=expected, fix=fix))
            position = int(position["next_index"])
        return _From(self, position)

    def identity(self) -> dict[str, int | float | str]:
        """What the batches depend on, and the settings of the training, as JSON."""
        crc = zlib.crc32(repr((self.rows.ids, self.rows.starts)).encode())
        return {
            "examples": len(self.rows),
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "seed": self.seed,
            "task": self.task,
            "tokens_crc32": crc,
            **self.training,
        }

    def places(self, step: int) -> np.ndarray:
        """The examples of a batch by their places in `rows`, without what fills it up."""
        epoch, place = divmod(step, steps_per_epoch(len(self.rows), self.batch_size))
        if epoch not in self._epoch:
            self._epoch.clear()
            self._epoch[epoch] = self._ordered(epoch)
        return self._epoch[epoch][place]

    def batch(self, step: int) -> dict[str, Any]:
        """One batch, its length that of its longest text on a grid of lengths."""
        index = self.places(step)
        length, width = self._lengths[index].max(), self._widths[index].max()
        places, weights = padded(index, self.batch_size)
        return token_batch(token_arrays(self.rows, places, length, width), weights, self._hidden(places, length))

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([on_grid(each) for each in self.rows.lengths])

    @cached_property
    def _widths(self) -> np.ndarray:
        """One width for all texts of one length, so that each length is compiled once."""
        learnt = self.rows.learnt
        widest = {length: on_grid(int(learnt[self._lengths == length].max())) for length in set(self._lengths)}
        running, wide = {}, 0
        for length in sorted(widest):  # a longer batch may hold shorter texts
            running[length] = wide = max(wide, widest[length])
        return np.array([running[length] for length in self._lengths])

    def _ordered(self, epoch: int) -> list[np.ndarray]:
        shuffled = order(len(self.rows), self.seed, self.task, epoch)
        grouped = shuffled[np.argsort(self._lengths[shuffled], kind="stable")]
        parts = [grouped[i : i + self.batch_size] for i in range(0, len(grouped), self.batch_size)]
        turns = np.random.default_rng([self.seed, self.task, epoch, 1]).permutation(len(parts))
        return [parts[turn] for turn in turns]

    def _hidden(self, places: np.ndarray, length: int) -> np.ndarray | None:
        if isinstance(self.hidden, HiddenRows):
            return self.hidden.take(places, length)
        return None if self.hidden is None else np.asarray(self.hidden[places, :length])


class _From(CountedBatches):
    """Batches with random access, from a position on."""

    def __init__(self, batches: TokenBatches, position: int) -> None:
        super().__init__(batches.batch(step) for step in range(position, len(batches)))
        self._taken, self._identity = position, batches.identity()

    def state(self) -> Position:
        """The position, and of which batches."""
        return {"next_index": self._taken, **self._identity}


def token_batch(
    arrays: Mapping[str, np.ndarray], weights: np.ndarray, hidden: np.ndarray | None = None
) -> dict[str, Any]:
    """A batch of `Learner` for `next_token`: the labels are the model's "targets", too.

    Args:
        arrays: as of `token_arrays`.
        weights: of the examples, (batch,).
        hidden: in place of the token ids.
    """
    inputs = dict(arrays) if hidden is None else {**arrays, "hidden": hidden}
    if hidden is not None:
        del inputs["input_ids"]
    labels = arrays["targets"]
    return {"inputs": inputs, "labels": labels, "weights": (labels >= 0) * weights[:, None]}
