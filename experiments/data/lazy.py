"""Rows of an input that are read when they are asked for: what stands for an array that would not fit in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.data.sources import Records

Read = Callable[[Any], np.ndarray]
"""A record -> its row, of one fixed shape and type."""


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Rows (N, ...) of one or more sources of records; indexed by a slice or by numbers it is an array.

    Attributes:
        sources: (records, read) each.
        source: (N,) the place of each row's source in `sources`.
        place: (N,) the place of each row's record in it.
        shape: as of the array.
        dtype: as of the array.
    """

    sources: tuple[tuple[Records, Read], ...]
    source: np.ndarray
    place: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.place)

    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> np.ndarray:
        """The rows at `index`, read now."""
        rows = np.empty((len(self.place[index]), *self.shape[1:]), self.dtype)
        for row, (source, place) in enumerate(zip(self.source[index], self.place[index], strict=True)):
            records, read = self.sources[source]
            rows[row] = read(records[int(place)])
        return rows

    def part(self, index: np.ndarray) -> "LazyRows":
        """The rows at `index`, still to be read."""
        place = self.place[index]
        return LazyRows(self.sources, self.source[index], place, (len(place), *self.shape[1:]), self.dtype)


def lazy_rows(records: Records, read: Read) -> LazyRows:
    """The rows of all records; the first is read, for the shape."""
    first, count = read(records[0]), len(records)
    source, place = np.zeros(count, np.int64), np.arange(count)
    return LazyRows(((records, read),), source, place, (count, *first.shape), first.dtype)


def joined(parts: Sequence[Any]) -> Any:
    """`np.concatenate` along the first axis, of arrays or of rows that are still to be read."""
    if not any(isinstance(part, LazyRows) for part in parts):
        return np.concatenate(parts)
    starts = np.cumsum([0, *(len(part.sources) for part in parts)])
    return LazyRows(
        tuple(source for part in parts for source in part.sources),
        np.concatenate([part.source + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.place for part in parts]),
        (sum(len(part) for part in parts), *parts[0].shape[1:]),
        parts[0].dtype,
    )
