"""The bounded-memory update of a basis: O(d (k + r)^2) however many columns the old coefficients stand for."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from share_jax.linalg.basis import Spectrum, dense_basis
from share_jax.linalg.products import product, transpose, working


@jax.jit
def coefficient_root(coeff: Float[Array, "*batch k n"]) -> Float[Array, "*batch k m"]:
    """A factor L, (k, min(k, n)), with L @ L.T = C @ C.T: the R of the QR of C.T, transposed.

    It stands for sqrt(C C.T), from which it differs by a rotation on the right that no left singular vector
    sees, and it does not square C's condition number on the way.
    """
    return transpose(jnp.linalg.qr(transpose(working(coeff)), mode="r"))


@jax.jit
def compressed_stack(
    basis: Float[Array, "*batch d k"],
    coeff: Float[Array, "*batch k n"],
    new: Float[Array, "*batch d r"],
) -> Float[Array, "*batch d m"]:
    """[basis @ L, new] with L L.T = C C.T: at most k + r columns with the left singular pairs of [basis @ C, new].

    (basis C)(basis C).T + new new.T is the same matrix for both. Zero columns of `basis`, with zero rows of
    `coeff`, are padding and add nothing.
    """
    old = product(working(basis), coefficient_root(coeff))
    return jnp.concatenate([old, working(new)], axis=-1)


@jax.jit
def incremental_basis(
    basis: Float[Array, "*batch d k"],
    coeff: Float[Array, "*batch k n"],
    new: Float[Array, "*batch d r"],
) -> Spectrum:
    """Spectrum of [basis @ coeff, new] without forming it; agrees with the dense recomputation to rounding."""
    return dense_basis(compressed_stack(basis, coeff, new))


@jax.jit
def rotate(
    basis_new: Float[Array, "*batch d q"],
    basis_old: Float[Array, "*batch d k"],
    coeff: Float[Array, "*batch k n"],
) -> Float[Array, "*batch q n"]:
    """Old coefficients on the new basis, `(basis_new.T @ basis_old) @ coeff`: rotated, never just padded."""
    return product(product(transpose(working(basis_new)), working(basis_old)), working(coeff))
