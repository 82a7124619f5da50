"""What a first pass over any number of adapters keeps of them: enough for exact bases, in bounded memory.

Per target and side, the balanced columns themselves while they are fewer than the rows; then their Gram matrix X @ X.T
in float64, whose size no longer depends on how many adapters there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import groups, shapes_of
from share_jax.annotations import Bool, Float
from share_jax.linalg.spectrum import Spectrum, spectra, spectrum_of_gram
from share_jax.runtime.threads import parallel_map
from share_jax.subspace.prepared_batches import Prepare, prepared

Key = tuple[str, str]
"""(target, side)."""


@dataclass(frozen=True)
class SideSketch:
    """Columns seen so far of one target and side: kept as they are, or summed into a Gram matrix."""

    rows: int
    columns: tuple[Float[np.ndarray, "d _"], ...] = ()
    gram: Float[np.ndarray, "d d"] | None = None
    energy: float = 0.0
    """Squared norm of the columns that are kept as they are."""

    @property
    def width(self) -> int:
        """Columns that are kept as they are."""
        return sum(x.shape[1] for x in self.columns)

    def absorb(self, new: Float[np.ndarray, "d n"], energy: float) -> "SideSketch":
        """With further columns of that squared norm; as many as rows are folded into the Gram matrix."""
        columns = (*self.columns, new)
        if self.width + new.shape[1] <= self.rows:
            return SideSketch(self.rows, columns, self.gram, self.energy + energy)
        x = np.concatenate(columns, axis=1).astype(np.float64)
        square = x @ x.T
        if self.gram is not None:
            square += self.gram
        return SideSketch(self.rows, (), square)

    def finished(self) -> "SideSketch":
        """With everything in the Gram matrix, if there is one."""
        if self.gram is None or not self.columns:
            return self
        x = np.concatenate(self.columns, axis=1).astype(np.float64)
        return SideSketch(self.rows, (), self.gram + x @ x.T)


@dataclass(frozen=True)
class Sketch:
    """A summary of adapters from which exact bases follow. `Sketch()` is of none."""

    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sides: Mapping[Key, SideSketch] = field(default_factory=dict)
    pseudo_rank: int = 1


def absorb(sketch: Sketch, adapters: Sequence[Adapter]) -> Sketch:
    """The sketch of what was seen before and of `adapters`.

    Raises:
        InputError: a target has another shape than before.
    """
    return _absorb(sketch, dict(sketch.sides), adapters)


def sketch_of(batches: Iterable[Sequence[Adapter]], prepare: Prepare = prepared) -> Sketch:
    """The sketch of many adapters, a batch at a time; each Gram matrix is replaced as it grows, none is kept twice.

    Args:
        batches: the adapters.
        prepare: packs and balances them.

    Raises:
        InputError: a target has another shape than before.
    """
    sketch, sides = Sketch(), {}
    for adapters in batches:
        sketch = _absorb(sketch, sides, adapters, prepare)
    return sketch


def _absorb(
    sketch: Sketch, sides: dict[Key, SideSketch], adapters: Sequence[Adapter], prepare: Prepare = prepared
) -> Sketch:
    """`absorb` into `sides`, which is changed and becomes the result's."""
    shapes = shapes_of(adapters, sketch.shapes)
    widest = sketch.pseudo_rank
    for names in groups({n: s for n, s in shapes.items() if any(n in x for x in adapters)}).values():
        packed, both = prepare(adapters, names, widest)
        widest = max(widest, both.a.shape[-1])
        used = np.arange(both.a.shape[-1]) < packed.ranks[:, :, None]
        jobs = [
            (name, side, x[i], used[i], float(energy[i].sum()))
            for side, x, energy in zip("ab", both[:2], both.energies(), strict=True)
            for i, name in enumerate(names)
        ]
        found = parallel_map(lambda job: _with_columns(sides.get(job[:2]), *job[2:]), jobs)
        sides.update(zip((job[:2] for job in jobs), found, strict=True))
    return Sketch(shapes, sides, widest)


def _with_columns(
    old: SideSketch | None, columns: Float[np.ndarray, "tasks d q"], used: Bool[np.ndarray, "tasks q"], energy: float
) -> SideSketch:
    """A side's sketch with some tasks' columns, of which those that are used count."""
    rows = np.swapaxes(columns, 1, 2)
    rows = rows.reshape(-1, rows.shape[2]) if used.all() else rows[used]
    return (old or SideSketch(rows.shape[1])).absorb(rows.T, energy)


def spectra_of(sketch: Sketch, *, k: int | None = None, seed: int = 0) -> dict[Key, Spectrum]:
    """Spectrum of every target and side; only the leading part if `k` is given."""

    def of_gram(side: SideSketch) -> Spectrum | None:
        whole = side.finished().gram
        return None if whole is None else spectrum_of_gram(whole, k=k, seed=seed)

    sides = list(sketch.sides.values())
    narrow = [side for side in sides if side.gram is None]
    energies = [side.energy for side in narrow]
    leading = iter(spectra([side.columns for side in narrow], k=k, seed=seed, energies=energies))
    return {key: found or next(leading) for key, found in zip(sketch.sides, parallel_map(of_gram, sides), strict=True)}
