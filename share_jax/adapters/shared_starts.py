"""Which adapters were trained from one initialisation, told from A alone.

Training moves A little, for its gradient is zero while B is: an adapter's A is its first A and a drift. Two adapters
that began with one random A have entries that go together, `cos(vec A_i, vec A_j) = |A_0|^2 / (|A_i| |A_j|)` for drifts
that have nothing in common. Two that began apart may span the same subspace, but each in a gauge of its own: the
columns of one go with those of the other no more than with those next to them, and the cosine has mean 0. Its variance
is 1 / n for n independent entries, and more where a subspace is shared; cosines with the columns shifted, A_j[:, 1:]
and so on, have the same one and show it. So a sample of the entries tells the two apart.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.annotations import Bool, Float, Int

ENTRIES = 4096
"""Entries of A that are looked at in an adapter, over all targets: chance then gives cosines of 0.016."""
LEAST_COSINE = 0.1
"""Below it less than a tenth of A's energy is still that of the start, which helps compressing little."""
SIGMAS = 6.0
"""Standard deviations of chance that a cosine must exceed where entries are few."""
CERTAIN = 0.9
"""A cosine that is enough however few entries there are."""
SHIFTS = 3

Sample = Mapping[tuple[str, tuple[int, int]], Float[np.ndarray, "_ _"]]
"""(target, shape of A) to some rows of A, scaled to length 1; none of an A that is zero."""


@dataclass(frozen=True)
class Starts:
    """What A says of where adapters began.

    Attributes:
        groups: positions of adapters that share a start, two or more each.
        alone: positions of all others.
        cosines: the mean cosine within each group: the share of A's energy that is still the start's.
    """

    groups: tuple[tuple[int, ...], ...]
    alone: tuple[int, ...]
    cosines: tuple[float, ...]

    @property
    def divided(self) -> bool:
        """Whether some share a start that others do not."""
        return bool(self.groups) and len(self.groups) + len(self.alone) > 1


def sample_of(adapter: Adapter) -> Sample:
    """Rows of every A, at places that depend on its shape alone."""
    each = max(16, ENTRIES // max(len(adapter), 1))
    out = {}
    for name, factors in adapter.items():
        rows, columns = np.shape(factors.lora_a)
        count = max(4, each // columns)
        entries = np.asarray(factors.lora_a)[_places(rows, count)].astype(np.float64)
        length = np.linalg.norm(entries)
        if length > 0:
            out[name, (rows, columns)] = (entries / length).astype(np.float32)
    return out


@functools.cache
def _places(rows: int, count: int) -> slice | Int[np.ndarray, " n"]:
    return slice(None) if rows <= count else np.random.default_rng(rows).integers(0, rows, count)


def cosines(samples: Sequence[Sample]) -> tuple[Float[np.ndarray, "T T"], Float[np.ndarray, "T T"]]:
    """(mean cosine of two adapters' A over common targets, its standard deviation by chance); 0 and inf without one."""
    shapes = {key: x.shape for sample in samples for key, x in sample.items()}
    if not shapes:
        return np.zeros((len(samples),) * 2), np.full((len(samples),) * 2, np.inf)
    ends = np.cumsum([0, *(n * r for n, r in shapes.values())])
    flat = np.zeros((1 + SHIFTS, len(samples), ends[-1]), np.float32)
    have = np.zeros((len(samples), len(shapes)))
    for i, (key, start, end) in enumerate(zip(shapes, ends, ends[1:], strict=False)):
        tasks = [t for t, sample in enumerate(samples) if key in sample]
        x = np.stack([samples[t][key] for t in tasks])
        have[tasks, i] = 1
        flat[0, tasks, start:end] = x.reshape(len(tasks), -1)
        for shift in range(1, 1 + SHIFTS if x.shape[2] > 1 else 1):
            moved = np.roll(x, 1 + (shift - 1) % (x.shape[2] - 1), axis=2)
            flat[shift, tasks, start:end] = moved.reshape(len(tasks), -1)
    targets = have @ have.T
    known = np.maximum(targets, 1)
    cosine, *shifted = (flat[0] @ x.T / known for x in flat)
    # what few shifts say of one pair is a poor estimate: it counts for no less than that of all pairs
    spread = np.mean(np.square(shifted), axis=0)
    entries = np.maximum([n * r for n, r in shapes.values()], 1)
    variance = np.maximum(np.maximum(spread, spread.mean()), (have / entries) @ have.T / known**2)
    return cosine, np.where(targets > 0, np.sqrt(variance), np.inf)


def find_starts(samples: Sequence[Sample]) -> Starts:
    """Adapters grouped by their start.

    >>> from share_jax.adapters import Factors
    >>> rng = np.random.default_rng(0)
    >>> starts = [rng.normal(size=(64, 4)) for _ in range(2)]
    >>> adapters = [{"q": Factors(starts[i] + 0.1 * rng.normal(size=(64, 4)), np.zeros((4, 8)))} for i in (0, 1, 0)]
    >>> find_starts([sample_of(adapter) for adapter in adapters]).groups
    ((0, 2),)
    """
    cosine, deviation = cosines(samples)
    single = all(shape[1] == 1 for sample in samples for _, shape in sample)  # one column has no other to compare with
    least = CERTAIN if single else np.minimum(np.maximum(LEAST_COSINE, SIGMAS * deviation), CERTAIN)
    parts = _connected(cosine >= least)
    groups = tuple(part for part in parts if len(part) > 1)
    within = tuple(float(cosine[np.ix_(part, part)][~np.eye(len(part), dtype=bool)].mean()) for part in groups)
    return Starts(groups, tuple(part[0] for part in parts if len(part) == 1), within)


def _connected(joined: Bool[np.ndarray, "T T"]) -> list[tuple[int, ...]]:
    """The connected parts of a graph, in the order of their first members."""
    left, out = np.ones(len(joined), bool), []
    for first in range(len(joined)):
        if not left[first]:
            continue
        part = np.zeros(len(joined), bool)
        part[first] = True
        fresh = part.copy()
        while fresh.any():
            fresh = joined[fresh].any(0) & ~part
            part |= fresh
        left &= ~part
        out.append(tuple(int(i) for i in np.flatnonzero(part)))
    return out
