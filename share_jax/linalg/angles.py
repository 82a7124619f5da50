"""Principal angles between subspaces: what may be compared where singular vectors may not."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from share_jax.linalg.products import product, transpose, working


@jax.jit
def principal_cosines(x: Float[Array, "*batch d k"], y: Float[Array, "*batch d m"]) -> Float[Array, "*batch q"]:
    """Cosines of the min(k, m) principal angles between the spans of two orthonormal bases, largest first."""
    s = jnp.linalg.svd(product(transpose(working(x)), working(y)), compute_uv=False)
    return jnp.clip(s, 0, 1)


@jax.jit
def principal_angles(x: Float[Array, "*batch d k"], y: Float[Array, "*batch d m"]) -> Float[Array, "*batch q"]:
    """The min(k, m) principal angles in radians, smallest first; columns of both must be orthonormal.

    Small angles come from sines and large ones from cosines, so both ends are accurate to rounding
    (Bjorck and Golub 1973; Knyazev and Argentati 2002, algorithm 3.1).
    """
    x, y = working(x), working(y)
    if x.shape[-1] < y.shape[-1]:
        x, y = y, x
    core = product(transpose(x), y)
    # one SVD for both: independent batched LAPACK calls in one program can block each other on few cores
    rest = y - product(x, core)
    widths = [(0, 0)] * (core.ndim - 2) + [(0, x.shape[-2] - x.shape[-1]), (0, 0)]
    cosines, sines = jnp.linalg.svd(jnp.stack([jnp.pad(core, widths), rest]), compute_uv=False)
    sines = sines[..., ::-1]
    small = cosines > jnp.sqrt(jnp.asarray(0.5, x.dtype))
    return jnp.where(small, jnp.arcsin(jnp.clip(sines, 0, 1)), jnp.arccos(jnp.clip(cosines, 0, 1)))
