"""Which examples make batch `step`: a pure function of seed, task and step, the same on every host.

Without buckets an epoch is one shuffle cut into batches. With buckets the shuffled examples are first put into the
order of their buckets (stable, so random within one), and the batches are then shuffled: every batch holds texts of
about one length and is cut to its bucket. Either way an epoch has every example once and the same number of batches.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from share_jax.errors import InputError, message
from share_jax.train.batches import order, steps_per_epoch

_EPOCHS_KEPT = 2


@dataclass(frozen=True)
class Shard:
    """The part of each global batch that one host reads: rows `index * B / count` and following, B / count of them.

    Attributes:
        index: of this host, as `jax.process_index()`.
        count: hosts, as `jax.process_count()`.

    Raises:
        InputError: `count` is below 1 or `index` is not in [0, count).
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Checks the range."""
        if self.count < 1 or not 0 <= self.index < self.count:
            got, fix = f"{self.index} of {self.count}", "pass jax.process_index() and jax.process_count()"
            raise InputError(message("host", got=got, expected="0 up to the number of hosts", fix=fix))

    def rows(self, batch_size: int) -> slice:
        """The rows of a global batch that are this host's.

        Raises:
            InputError: the hosts do not divide the batch.

        >>> Shard(1, 4).rows(8)
        slice(2, 4, None)
        """
        if batch_size % self.count:
            expected, fix = f"a multiple of the {self.count} hosts", "change the global batch size"
            raise InputError(message("batch size", got=batch_size, expected=expected, fix=fix))
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


LEARNT = ("columns", "targets")
"""Inputs whose second axis is that of the tokens that are learnt."""


@dataclass(frozen=True, eq=False)
class Buckets:
    """A small fixed set of text lengths; each is one shape, and compiles once.

    Attributes:
        tokens: (examples,) tokens of each text.
        lengths: rising; the last holds the longest text.
        inputs: names of the inputs whose second axis is that of the tokens.
        learnt: of each length how many tokens are learnt at most in a text of it; None for tasks of another kind.

    Raises:
        InputError: `lengths` do not rise, or the longest text is longer than the last.
    """

    tokens: np.ndarray
    lengths: tuple[int, ...]
    inputs: tuple[str, ...]
    learnt: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Checks the lengths."""
        if not self.lengths or self.lengths[0] < 1 or list(self.lengths) != sorted(set(self.lengths)):
            fix = "pass such as (8, 16, 24)"
            raise InputError(message("bucket lengths", got=self.lengths, expected="rising whole numbers", fix=fix))
        if len(self.tokens) and (longest := int(np.max(self.tokens))) > self.lengths[-1]:
            expected, fix = f"at least {longest}, the longest text", "add a bucket or cut the texts"
            raise InputError(message("last bucket length", got=self.lengths[-1], expected=expected, fix=fix))

    def of(self, index: np.ndarray) -> np.ndarray:
        """The place of each example's bucket in `lengths`."""
        return np.searchsorted(self.lengths, self.tokens[index])


def bucketed(
    inputs: Mapping[str, np.ndarray],
    lengths: Sequence[int],
    mask: str = "attention_mask",
    whole: Collection[str] = ("pooled", *LEARNT),
    learnt: tuple[int, ...] | None = None,
) -> Buckets | None:
    """Buckets of tokenized texts, with the texts' own length as the last; None where there are no texts or lengths.

    Args:
        inputs: arrays (examples, ...); `mask` (examples, L) is 0 after a text's end.
        lengths: wanted lengths; those of at least L are left out.
        mask: name of the mask; without it, the inputs are no texts.
        whole: names of inputs whose second axis is another one.
        learnt: as of `Buckets`, of all lengths.
    """
    if not lengths or mask not in inputs:
        return None
    length = inputs[mask].shape[1]
    names = tuple(
        name for name, array in inputs.items() if name not in whole and array.ndim > 1 and array.shape[1] == length
    )
    return Buckets(token_counts(inputs[mask]), (*(n for n in lengths if n < length), length), names, learnt)


def token_counts(mask: np.ndarray) -> np.ndarray:
    """Tokens of each row up to its last unmasked one, (N,) of (N, L).

    >>> token_counts(np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]])).tolist()
    [2, 0, 3]
    """
    ends = mask.shape[1] - np.argmax(mask[:, ::-1] != 0, axis=1)
    return np.where((mask != 0).any(axis=1), ends, 0)


class Order:
    """The batches of one task, epoch after epoch, as indices."""

    def __init__(self, examples: int, batch_size: int, seed: int, task: int, buckets: Buckets | None = None) -> None:
        """Takes what the order depends on.

        Raises:
            InputError: no examples, a batch size below 1, or buckets of another number of examples.
        """
        if examples < 1:
            fix = "check the stream's split"
            raise InputError(message("examples of the task", got=examples, expected="at least 1", fix=fix))
        if batch_size < 1:
            raise InputError(message("batch size", got=batch_size, expected="at least 1", fix="pass 32"))
        if buckets is not None and len(buckets.tokens) != examples:
            got, expected = len(buckets.tokens), f"{examples}, one for each example"
            raise InputError(message("token counts", got=got, expected=expected, fix="count every text's tokens"))
        self.examples, self.batch_size, self.seed, self.task, self.buckets = examples, batch_size, seed, task, buckets
        self.per_epoch = steps_per_epoch(examples, batch_size)
        self._epochs: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def batch(self, step: int) -> tuple[np.ndarray, int | None]:
        """Indices of the examples of a batch, at most `batch_size`, and the length it is cut to, if any."""
        epoch, place = divmod(step, self.per_epoch)
        shuffled, turns = self._epoch(epoch)
        start = turns[place] * self.batch_size
        index = shuffled[start : start + self.batch_size]
        return index, None if self.buckets is None else self.buckets.lengths[self.buckets.of(index).max()]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if epoch not in self._epochs:
                self._epochs[epoch] = self._ordered(epoch)
                while len(self._epochs) > _EPOCHS_KEPT:
                    self._epochs.popitem(last=False)
            return self._epochs[epoch]

    def _ordered(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        shuffled = order(self.examples, self.seed, self.task, epoch)
        if self.buckets is None:
            return shuffled, np.arange(self.per_epoch)
        grouped = shuffled[np.argsort(self.buckets.of(shuffled), kind="stable")]
        return grouped, np.random.default_rng([self.seed, self.task, epoch, 1]).permutation(self.per_epoch)

    def identity(self) -> dict[str, int | list[int]]:
        """What the order depends on, as JSON, to be kept beside a position in it."""
        who: dict[str, int | list[int]] = {
            "examples": self.examples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "task": self.task,
        }
        if self.buckets is not None:
            who["lengths"] = list(self.buckets.lengths)
            who["tokens_crc32"] = zlib.crc32(np.ascontiguousarray(self.buckets.tokens, np.int64).tobytes())
        return who
