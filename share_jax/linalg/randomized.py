"""Bases of wide stacks by a randomised range finder with power iterations."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from share_jax.linalg.basis import Spectrum, orthonormal, well_spread
from share_jax.linalg.products import product, transpose, working
from share_jax.typing import PRNGKey

OVERSAMPLE = 16
POWER_ITERATIONS = 4


@functools.partial(jax.jit, static_argnames=("width", "power_iterations"))
def randomized_basis(
    key: PRNGKey, stack: Float[Array, "*batch d n"], *, width: int, power_iterations: int = POWER_ITERATIONS
) -> Spectrum:
    """The leading part of `dense_basis`, `width` columns or as many as there are, for a few thin products' cost.

    Range finder on a Gaussian test matrix with subspace iterations, then the SVD of the small projection (Halko,
    Martinsson and Tropp 2011, algorithms 4.4 and 5.1), of which a QR decomposition leaves LAPACK a (width, width)
    core. Between the iterations LU decompositions keep the columns apart, for half of what QR would take. Ask for a
    few more columns than are wanted (`OVERSAMPLE`) and drop the last ones: those are the inaccurate ones.
    """
    x = working(stack)
    n = x.shape[-1]
    test = jax.random.normal(key, (*x.shape[:-2], n, min(width, *x.shape[-2:])), x.dtype)

    def again(_: int, q: Float[Array, "*batch d m"]) -> Float[Array, "*batch d m"]:
        return product(x, well_spread(product(transpose(x), well_spread(q))))

    q = orthonormal(jax.lax.fori_loop(0, power_iterations, again, product(x, test)))
    core = jnp.linalg.qr(transpose(product(transpose(q), x)), mode="r")
    small, s, _ = jnp.linalg.svd(transpose(core), full_matrices=False)
    return Spectrum(product(q, small), s)
