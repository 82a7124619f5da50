"""Orthonormal bases of a stack of columns: the dense thin SVD, and the numerical rank."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from share_jax.linalg.products import working


class Spectrum(NamedTuple):
    """Left singular vectors of a stack, largest singular value first."""

    basis: Float[Array, "*batch d m"]
    singular_values: Float[Array, "*batch m"]


@jax.jit
def dense_basis(stack: Float[Array, "*batch d n"]) -> Spectrum:
    """Thin SVD of `stack`, in float32 or float64 (lower inputs are upcast). Batched over leading axes.

    The top k columns are the best k-dimensional subspace for the stack: the squared error of projecting on them
    is the sum of the discarded squared singular values (Eckart and Young 1936).
    """
    u, s, _ = jnp.linalg.svd(working(stack), full_matrices=False)
    return Spectrum(u, s)


def rank_tolerance(rows: int, columns: int, dtype: jnp.dtype) -> float:
    """Relative size below which a singular value is rounding: max(rows, columns) * machine epsilon."""
    return max(rows, columns) * float(jnp.finfo(dtype).eps)


@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def numerical_rank(singular_values: Float[Array, "*batch m"], *, rows: int, columns: int) -> Int[Array, "*batch"]:
    """Number of singular values above `rank_tolerance` times the largest; 0 for a zero stack.

    `rows` and `columns` are the stack's own, without padding: a zero column adds no rank.
    """
    largest = jnp.max(singular_values, axis=-1, keepdims=True, initial=0.0)
    floor = largest * rank_tolerance(rows, columns, singular_values.dtype)
    return jnp.sum(singular_values > floor, axis=-1).astype(jnp.int32)


def orthonormal(x: Float[Array, "*batch d m"]) -> Float[Array, "*batch d m"]:
    """Orthonormal columns by Householder QR, each with the sign of the column it comes from.

    Columns that depend on earlier ones come out as arbitrary unit vectors: drop them by rank before use.
    """
    q, r = jnp.linalg.qr(x)
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    return q * jnp.where(diagonal < 0, -1, 1).astype(q.dtype)[..., None, :]
