"""Which path takes the spectrum of a group of stacks; the answers do not depend on it beyond rounding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from share_jax.core.pack import bucket, pad
from share_jax.linalg import (
    OVERSAMPLE,
    dense_basis,
    gram_basis,
    randomized_basis,
    rank_tolerance,
    symmetric_basis,
)

DENSE_UP_TO = 128
"""Up to this many columns or rows one SVD costs no more than its detours."""


class Spectra(NamedTuple):
    """Per layer: an orthonormal basis, its singular values, the stack's energy and its numerical rank."""

    basis: Float[np.ndarray, "L d m"]
    singular_values: Float[np.ndarray, "L m"]
    energy: Float[np.ndarray, " L"]
    rank: Int[np.ndarray, " L"]


def spectra_of_stacks(stack: Float[np.ndarray, "L d n"], *, k: int | None = None, seed: int = 0) -> Spectra:
    """Spectra of stacks of columns: all of it, or the leading part if only `k` columns will be kept.

    Small stacks go through the dense SVD, a few columns of a large one through the randomised path, the whole of a
    large one through its Gram matrix. Zero columns are padding and count for nothing.
    """
    _, d, n = stack.shape
    energy = np.einsum("ldn,ldn->l", stack, stack, dtype=np.float64, optimize=False)
    wide = jnp.asarray(pad(stack, 2, bucket(n)))
    smaller = min(d, n)
    if smaller <= DENSE_UP_TO:
        found = dense_basis(wide)
    elif k is not None and 3 * (k + OVERSAMPLE) <= smaller:
        found = randomized_basis(jax.random.key(seed), wide, width=bucket(k + OVERSAMPLE))
    else:
        found = gram_basis(wide)
    return _ranked(found.basis, found.singular_values, energy, smaller)


def spectra_of_grams(grams: Float[np.ndarray, "L d d"], *, k: int | None = None, seed: int = 0) -> Spectra:
    """The same from the (d, d) Gram matrices X @ X.T of stacks too wide to keep, in float64 throughout."""
    d = grams.shape[-1]
    energy = np.trace(grams, axis1=1, axis2=2)
    with jax.enable_x64(True):
        if k is not None and 3 * (k + OVERSAMPLE) <= d:
            found = randomized_basis(jax.random.key(seed), grams, width=bucket(k + OVERSAMPLE))
            values = np.sqrt(np.asarray(found.singular_values))
        else:
            found = symmetric_basis(grams)
            values = np.asarray(found.singular_values)
        basis = np.asarray(found.basis, np.float32)
    return _ranked(basis, values.astype(np.float32), energy, d)


def _ranked(basis: object, values: object, energy: np.ndarray, smaller: int) -> Spectra:
    basis, values = np.asarray(basis)[:, :, :smaller], np.asarray(values)[:, :smaller]
    # the width of a stack grows with its tasks, its rounding does not: the rows alone set the tolerance
    d = basis.shape[1]
    floor = values.max(axis=1, keepdims=True, initial=0.0) * rank_tolerance(d, d, np.dtype(np.float32))
    return Spectra(basis, values, energy, np.sum(values > floor, axis=1))
