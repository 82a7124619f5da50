"""Bases and coefficients in fewer bytes, with the error that this adds measured and counted into every bound."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import ml_dtypes
import numpy as np

from share_jax.annotations import Float, Shaped
from share_jax.errors import InputError, message
from share_jax.linalg import basis_products
from share_jax.subspace import error_bounds
from share_jax.subspace.projection import reconstruct
from share_jax.subspace.state import ShareState, Subspace

Storage = Literal["f32", "bf16", "int8"]


@dataclass(frozen=True)
class QuantizedArray:
    """One array as it is stored; `scales` (one per column of the last axis) only for int8."""

    values: Shaped[np.ndarray, "..."]
    scales: Float[np.ndarray, " columns"] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values and scales."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


@dataclass(frozen=True)
class StoredLayer:
    """The four arrays of one target as they are stored."""

    basis_a: QuantizedArray
    basis_b: QuantizedArray
    coeff_a: QuantizedArray
    coeff_b: QuantizedArray

    @property
    def nbytes(self) -> int:
        """Bytes of all four."""
        return sum(x.nbytes for x in (self.basis_a, self.basis_b, self.coeff_a, self.coeff_b))


@dataclass(frozen=True)
class RoundedBasis:
    """A basis as it is stored, and Gram matrices that serve all its sizes.

    Columns are rounded one by one: the first k of the rounded basis are the first k, rounded, and each matrix of theirs
    is a leading block.
    """

    stored: QuantizedArray  # (d, K)
    exact: Float[np.ndarray, "K K"]  # U.T @ U of the basis
    mixed: Float[np.ndarray, "K K"]  # V.T @ U with the rounded basis
    rounded: Float[np.ndarray, "K K"]  # V.T @ V

    def leading(self, k: int) -> "RoundedBasis":
        """Of the first k columns."""
        scales = None if self.stored.scales is None else self.stored.scales[:k]
        stored = QuantizedArray(self.stored.values[:, :k], scales)
        return RoundedBasis(stored, self.exact[:k, :k], self.mixed[:k, :k], self.rounded[:k, :k])

    def to_rounded(self) -> Float[np.ndarray, "K K"]:
        """As `to_rounded_basis`."""
        return np.linalg.solve(self.rounded, self.mixed)


def round_basis(basis: Float[np.ndarray, "d K"], storage: Storage | str) -> RoundedBasis:
    """A basis in `storage`, for all of its sizes at once."""
    stored = encode(basis, storage)
    u, v = basis.astype(np.float64), decode(stored).astype(np.float64)
    return RoundedBasis(stored, basis_products.gram(u), v.T @ u, basis_products.gram(v))


def encode(x: Float[np.ndarray, "..."], storage: Storage | str, *, axis: int = 0) -> QuantizedArray:
    """One array in `storage`. int8 rounds to `scale * -127..127` with `scale = max |x| / 127` per column.

    A column is what runs along `axis`; every other axis has scales of its own, laid out flat.

    Raises:
        InputError: there is no such storage.
    """
    if storage == "f32":
        return QuantizedArray(np.asarray(x, np.float32))
    if storage == "bf16":
        return QuantizedArray(np.asarray(x, np.float32).astype(ml_dtypes.bfloat16))
    if storage != "int8":
        raise InputError(message("storage", got=storage, expected="f32, bf16 or int8", fix="pass f32"))
    scales = np.max(np.abs(x), axis=axis, keepdims=True, initial=0.0).astype(np.float32) / np.float32(127)
    values = np.clip(np.rint(x / np.where(scales > 0, scales, 1)), -127, 127).astype(np.int8)
    return QuantizedArray(values, scales.reshape(-1))


def decode(stored: QuantizedArray, *, axis: int = 0) -> Float[np.ndarray, "..."]:
    """The float32 array that `encode` stands for."""
    x = np.asarray(stored.values, np.float32)
    if stored.scales is None:
        return x
    shape = list(x.shape)
    shape[axis] = 1
    return x * np.asarray(stored.scales, np.float32).reshape(shape)


def store(state: ShareState, storage: Storage | str) -> tuple[dict[str, StoredLayer], ShareState]:
    """What to write, and the state that reading it gives back.

    Bases are rounded first; coefficients are then the best ones for the rounded bases, and rounded in turn (int8: one
    scale per task and column). The state's bases are orthonormal again, its updates are those of the stored arrays,
    and what the rounding moved is in every task's `change` and `bound`.

    Raises:
        InputError: there is no such storage.
    """
    stored = store_layers(state, storage)
    if storage == "f32" and all(_single(layer) for layer in state.layers.values()):  # nothing has moved
        still = {name: replace(x, change=np.zeros_like(x.change)) for name, x in state.layers.items()}
        return stored, ShareState(state.tasks, still)
    layers = {n: _measured(x, replace(x, **restored_arrays(stored[n]))) for n, x in state.layers.items()}
    return stored, ShareState(state.tasks, layers)


def store_layers(state: ShareState, storage: Storage | str) -> dict[str, StoredLayer]:
    """What `store` writes, with nothing measured.

    Raises:
        InputError: there is no such storage.
    """
    return {name: store_layer(layer, storage) for name, layer in state.layers.items()}


def squared_rounding(
    layer: Subspace, stored: StoredLayer, bases: tuple[RoundedBasis, RoundedBasis]
) -> Float[np.ndarray, " T"]:
    """The squared error that rounding adds to every task's update, to 1e-7 of its squared norm.

    By Gram matrices on the bases in the columns geometry, where no factor is formed and no basis made orthonormal.

    Args:
        layer: before it was stored.
        stored: what was stored of it, maybe in another gauge.
        bases: its rounded bases.
    """
    if layer.geometry != "columns":
        return _measured(layer, replace(layer, **restored_arrays(stored))).change ** 2
    grams = []
    for side, basis in zip("ab", bases, strict=True):
        coeff = decode(getattr(stored, f"coeff_{side}"), axis=1)
        c, d = (x.astype(np.float64) for x in (getattr(layer, f"coeff_{side}"), coeff))
        own, both, other = basis.exact @ c, basis.mixed.T @ d, basis.rounded @ d
        grams.append(error_bounds.Grams(c.mT @ own, c.mT @ both, d.mT @ other))
    return error_bounds.distance_from_grams(*grams)[1]


def restored_arrays(stored: StoredLayer) -> dict[str, Float[np.ndarray, "..."]]:
    """The four arrays of a `Subspace` that stored ones stand for, by field.

    A rounded basis Q is no longer orthonormal: with its QR decomposition, (Q, c) becomes (orthonormal, R c), the same
    update. float32 comes back as it is.
    """
    fields = {}
    for side in "ab":
        basis, coeff = decode(getattr(stored, f"basis_{side}")), decode(getattr(stored, f"coeff_{side}"), axis=1)
        if getattr(stored, f"basis_{side}").values.dtype != np.float32:
            q, r = np.linalg.qr(basis.astype(np.float64))
            basis, coeff = q.astype(np.float32), (r @ coeff.astype(np.float64)).astype(np.float32)
        fields |= {f"basis_{side}": basis, f"coeff_{side}": coeff}
    return fields


def nbytes(stored: Mapping[str, StoredLayer]) -> int:
    """Bytes of all arrays of a set, without headers."""
    return sum(layer.nbytes for layer in stored.values())


def to_rounded_basis(basis: Float[np.ndarray, "d k"], rounded: QuantizedArray) -> Float[np.ndarray, "k k"]:
    """The map from coefficients on a basis to the best ones on its rounding, by least squares.

    The rounded columns are nearly orthonormal, so normal equations will do.
    """
    q = decode(rounded).astype(np.float64)
    return np.linalg.solve(q.T @ q, q.T @ basis.astype(np.float64))


def store_layer(
    layer: Subspace, storage: Storage | str, bases: tuple[RoundedBasis, RoundedBasis] | None = None
) -> StoredLayer:
    """What `store` writes of one target.

    Args:
        layer: the target.
        storage: of its arrays.
        bases: its rounded bases, where they are known.

    Raises:
        InputError: there is no such storage.
    """
    fields = {}
    for side, known in zip("ab", bases or (None, None), strict=True):
        basis, coeff = getattr(layer, f"basis_{side}"), getattr(layer, f"coeff_{side}")
        rounded = encode(basis, storage) if known is None else known.stored
        if storage != "f32" and basis.shape[1]:
            turned = to_rounded_basis(basis, rounded) if known is None else known.to_rounded()
            coeff = (turned @ coeff).astype(np.float32)
        fields |= {f"basis_{side}": rounded, f"coeff_{side}": encode(coeff, storage, axis=1)}
    return StoredLayer(**fields)


def _single(layer: Subspace) -> bool:
    return all(x.dtype == np.float32 for x in (layer.basis_a, layer.basis_b, layer.coeff_a, layer.coeff_b))


def _measured(before: Subspace, after: Subspace) -> Subspace:
    sides = []
    for x in (before, after):
        sides.append(reconstruct(x.basis_a, x.coeff_a, x, 0, x.ranks))
        sides.append(reconstruct(x.basis_b, x.coeff_b, x, 1, x.ranks))
    change = np.sqrt(error_bounds.squared_change(*sides))
    return replace(after, change=change, bound=before.bound + change * (1 + 1e-9))
