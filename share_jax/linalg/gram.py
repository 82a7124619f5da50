"""Bases through the smaller Gram matrix, with the symmetric eigen-solver.

A Gram matrix squares the condition number: in float32 it says nothing of directions below about 3e-4 of the largest.
So the stack is deflated once: the strong directions come from its Gram matrix, the weak ones from the Gram matrix of
what the strong ones leave over, whose own largest direction is small. Together they reach the dense path's rounding.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from share_jax.linalg.basis import Spectrum, orthonormal
from share_jax.linalg.products import gram, product, transpose, working

STRONG = 0.02
"""Directions above this share of the largest are taken from the first Gram matrix."""


@jax.jit
def symmetric_basis(matrix: Float[Array, "*batch d d"]) -> Spectrum:
    """Spectrum of a stack X from its X @ X.T, by the symmetric eigen-solver; singular values are square roots.

    Resolves singular values down to sqrt(d * machine epsilon) of the largest: pass float64 for a float32 claim.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    return Spectrum(vectors[..., ::-1], jnp.sqrt(jnp.maximum(values[..., ::-1], 0)))


def _directions(stack: Float[Array, "*batch d n"]) -> Spectrum:
    """Unit left directions of a tall or wide stack from its smaller Gram matrix, without any care for small ones."""
    d, n = stack.shape[-2:]
    if d <= n:
        return symmetric_basis(product(stack, transpose(stack)))
    right, s = symmetric_basis(gram(stack))
    images = product(stack, right)
    length = jnp.linalg.norm(images, axis=-2, keepdims=True)
    return Spectrum(images / jnp.where(length > 0, length, 1), s)


@jax.jit
def gram_basis(stack: Float[Array, "*batch d n"]) -> Spectrum:
    """As `dense_basis`, by two symmetric eigen-problems of size min(d, n) and products instead of one SVD.

    Agrees with the dense path on the subspace above the numerical rank. Columns are orthonormal to rounding.
    """
    x = working(stack)
    m = min(x.shape[-2:])
    first = _directions(x)
    strong = first.singular_values > STRONG * first.singular_values[..., :1]
    head = orthonormal(first.basis * strong[..., None, :]) * strong[..., None, :]
    rest = x - product(head, product(transpose(head), x))
    rest = rest - product(head, product(transpose(head), rest))
    second = _directions(rest)
    # strong columns first, then the weak ones in their own order, then cut to m
    joined = jnp.concatenate([head, second.basis], axis=-1)
    weight = jnp.concatenate([jnp.where(strong, first.singular_values, 0), second.singular_values], axis=-1)
    order = jnp.argsort(-weight, axis=-1, stable=True)[..., :m]
    basis = orthonormal(jnp.take_along_axis(joined, order[..., None, :], axis=-1))
    s = jnp.linalg.norm(product(transpose(basis), x), axis=-1)
    again = jnp.argsort(-s, axis=-1, stable=True)
    return Spectrum(jnp.take_along_axis(basis, again[..., None, :], axis=-1), jnp.take_along_axis(s, again, axis=-1))
