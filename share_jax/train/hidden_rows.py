"""What a frozen prefix makes of texts of unlike lengths: an array for each of a few lengths, so that one long text does
not make all of them as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from share_jax.train.prefix_cache import PrefixCache
from share_jax.train.token_rows import TokenRows, on_grid, token_arrays

SHORTEST = 64
"""Tokens of the shortest array; the next ones are twice as long each, the last one as long as the longest text."""


@dataclass(frozen=True, eq=False)
class HiddenRows:
    """The states of every text.

    Attributes:
        arrays: of each length the texts that fit into no shorter one, (n, length, d).
        lengths: (N,) of each text the length of its array.
        places: (N,) of each text its row there.
    """

    arrays: Mapping[int, np.ndarray]
    lengths: np.ndarray
    places: np.ndarray

    def take(self, index: np.ndarray, length: int) -> np.ndarray:
        """The first states of some texts, (n, length, d); zeros behind those of a shorter array."""
        some = next(iter(self.arrays.values()))
        out = np.zeros((len(index), length, some.shape[2]), some.dtype)
        for own, array in self.arrays.items():
            rows = np.flatnonzero(self.lengths[index] == own)
            most = min(length, own)
            out[rows, :most] = array[self.places[index[rows]], :most]
        return out


def hidden_rows(cache: PrefixCache, rows: TokenRows) -> HiddenRows:
    """The states of all texts, through a cache.

    Args:
        cache: of the model's frozen layers.
        rows: the texts.

    Raises:
        LimitError, SaveError: as `PrefixCache.of`.
    """
    longest = on_grid(int(rows.lengths.max()))
    lengths = np.array([_length(int(each), longest) for each in rows.lengths])
    places, arrays = np.zeros(len(rows), int), {}
    for length in sorted(set(lengths.tolist())):
        own = np.flatnonzero(lengths == length)
        places[own] = np.arange(len(own))
        inputs = token_arrays(rows, own, length, 1 + int(rows.learnt.max()))
        arrays[length] = cache.of({name: inputs[name] for name in ("input_ids", "attention_mask")})
    return HiddenRows(arrays, lengths, places)


def _length(tokens: int, longest: int) -> int:
    length = SHORTEST
    while length < tokens:
        length *= 2
    return min(length, longest)
