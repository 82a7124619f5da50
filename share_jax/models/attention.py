"""Attention in the form that XLA's CPU backend runs fastest.

Heads lead, so that each product is a plain batched one, and the weights are normalised after they have been applied: a
division per output instead of one per pair of tokens.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from share_jax.typing import Array


def attend(
    query: Float[Array, "batch n heads d"],
    key: Float[Array, "batch m heads d"],
    value: Float[Array, "batch m heads d"],
    bias: Float[Array, "#batch #heads #n m"] | None = None,
) -> Float[Array, "batch n heads d"]:
    """softmax(query key^T / sqrt(d) + bias) value, head by head; the exponentials and their sum in float32.

    It also serves as `attention_fn` of Flax's attention without a mask.

    Args:
        query: one for each position that attends.
        key: one for each position that is attended to.
        value: the same.
        bias: added to the scores, float32; nothing when None.
    """
    query = query * (query.shape[-1] ** -0.5)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    scores = jnp.einsum("bhnd,bhmd->bhnm", query, key).astype(jnp.float32)
    scores = scores if bias is None else scores + bias
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    mixed = jnp.einsum("bhnm,bhmd->bhnd", weights.astype(value.dtype), value)
    return jnp.swapaxes((mixed / total).astype(value.dtype), 1, 2)
