"""From packed factors to the columns a basis is made of, in either geometry, and back."""

from typing import NamedTuple

import numpy as np

from share_jax.adapters.stacking import Packed
from share_jax.annotations import Float
from share_jax.linalg.balance import FactorGrams, balanced
from share_jax.subspace.state import Geometry


class Columns(NamedTuple):
    """Both sides' columns, task by task, and what is known of the factors that they were made of."""

    a: Float[np.ndarray, "layers tasks rows_a q"]
    b: Float[np.ndarray, "layers tasks rows_b q"]
    known: FactorGrams | None = None

    def layer(self, i: int) -> "Columns":
        """One layer's, without the axis of layers."""
        return Columns(self.a[i], self.b[i], None if self.known is None else FactorGrams(*(x[i] for x in self.known)))

    def energies(self) -> tuple[Float[np.ndarray, "*layers tasks"], Float[np.ndarray, "*layers tasks"]]:
        """Squared norms of each side's columns, in float64; those of balanced columns are known, and alike."""
        if self.known is not None:
            return self.known.energy, self.known.energy
        return _squared(self.a), _squared(self.b)


def columns_of(packed: Packed, geometry: Geometry) -> Columns:
    """Balanced columns (q = p), or each raw factor as one vector (q = 1), its columns one after another.

    Balancing fixes columns only up to sign and order, which vectors must not depend on: the flat geometry
    takes the factors as they were trained, with the scale folded in half on either side.
    """
    if geometry == "columns":
        return Columns(*balanced(packed.a, packed.b))
    return Columns(flatten(packed.a), flatten(packed.b))


def _squared(columns: Float[np.ndarray, "*batch rows q"]) -> Float[np.ndarray, "*batch"]:
    rows, q = columns.shape[-2:]
    flat = np.swapaxes(columns, -1, -2).reshape(*columns.shape[:-2], q * rows).astype(np.float64)
    return np.vecdot(flat, flat)


def flatten(x: Float[np.ndarray, "*batch d p"]) -> Float[np.ndarray, "*batch rows 1"]:
    """Columns one after another: appending a zero column appends zeros."""
    return np.ascontiguousarray(np.swapaxes(x, -1, -2)).reshape(*x.shape[:-2], x.shape[-1] * x.shape[-2], 1)


def unflatten(x: Float[np.ndarray, "*batch rows 1"], d: int) -> Float[np.ndarray, "*batch d p"]:
    """The inverse of `flatten`."""
    return np.swapaxes(x.reshape(*x.shape[:-2], x.shape[-2] // d, d), -1, -2)
