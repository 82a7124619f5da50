"""The two skinny products of an adapter, in the form that compilers do not spoil.

Written plainly, `x @ a @ b` lets XLA's CPU backend fuse the backward pass of the activation before it into the rank-r
products and compute it again for every one of their few columns. Two habits keep it out: x is flattened to two
dimensions before `x @ a`, and the second product is a batched one with one (r, d_out) factor per example, which is
also the form that a batch of different tasks needs. `experiments/bench` measures both against the plain form.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def down_product(x: Float[Array, "batch n d_in"], matrix: Float[Array, "*batch d_in q"]) -> Float[Array, "batch n q"]:
    """x @ matrix, with one matrix for the batch or one per example.

    Args:
      x: inputs (batch, n, d_in).
      matrix: (d_in, q), or (batch, d_in, q).

    Returns:
      (batch, n, q)
    """
    if matrix.ndim == 3:
        return jnp.einsum("bnd,bdq->bnq", x, matrix)
    batch, n, d_in = x.shape
    return (x.reshape(batch * n, d_in) @ matrix).reshape(batch, n, matrix.shape[-1])


def up_product(h: Float[Array, "batch n q"], matrix: Float[Array, "*batch q d_out"]) -> Float[Array, "batch n d_out"]:
    """h @ matrix as a batched product, with one matrix for the batch or one per example.

    Args:
      h: the inner columns (batch, n, q).
      matrix: (q, d_out), or (batch, q, d_out).

    Returns:
      (batch, n, d_out)
    """
    per_example = jnp.broadcast_to(matrix, (h.shape[0], *matrix.shape[-2:]))
    return jnp.einsum("bnq,bqd->bnd", h, per_example)
