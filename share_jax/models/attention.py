"""Attention in the form that XLA's CPU backend runs fastest.

Heads lead, so that each product is a plain batched one, and the weights are normalised after they have been applied: a
division per output instead of one per pair of tokens. Query heads that share a key head stand under each other as rows
of one product, so that keys and values are never repeated. Where no position sees those behind it, rows are taken in
blocks, each with the keys up to its end: what lies behind would be computed and thrown away.

Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762); shared key heads: Ainslie et al. 2023,
"GQA" (arXiv 2305.13245).
"""

import jax
import jax.numpy as jnp
from jax import lax

from share_jax.annotations import Float
from share_jax.typing import Array

LEAST_ROWS, MOST_BLOCKS = 64, 4
"""Positions of a block, at least, and blocks of a text, at most: more of them save little and take long to compile."""


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
    return jnp.swapaxes(attend_heads(query, key, value, bias), 1, 2)


def attend_heads(
    query: Float[Array, "batch heads n d"],
    key: Float[Array, "batch key_heads m d"],
    value: Float[Array, "batch key_heads m d"],
    bias: Float[Array, "#batch #heads #n m"] | None = None,
    softcap: float | None = None,
    causal: bool = False,
) -> Float[Array, "batch heads n d"]:
    """softmax(query key^T + bias) value with heads in front; the exponentials and their sum in float32.

    Args:
        query: scaled already.
        key: of as many heads, or of fewer: query heads h * heads / key_heads and so on share key head h.
        value: the same.
        bias: added to the scores, float32; nothing when None.
        softcap: bounds the scores, before the bias, to softcap * tanh(scores / softcap).
        causal: whether the bias, (..., n, n), lets no position see those behind it: a CPU then takes rows in blocks.
    """
    n = query.shape[2]
    rows = max(LEAST_ROWS, -(-n // MOST_BLOCKS))
    if not causal or bias is None or n <= rows or jax.default_backend() != "cpu":
        return _attend_rows(query, key, value, bias, softcap)
    parts = []
    for first in range(0, n, rows):
        end = min(n, first + rows)
        seen = bias[..., first:end, :end]
        parts.append(_attend_rows(query[:, :, first:end], key[:, :, :end], value[:, :, :end], seen, softcap))
    return jnp.concatenate(parts, axis=2)


def _attend_rows(query: Array, key: Array, value: Array, bias: Array | None, softcap: float | None) -> Array:
    """`attend_heads` of rows that take all keys."""
    batch, heads, n, d = query.shape
    grouped, m = key.shape[1], key.shape[2]
    rows = query.reshape(batch, grouped, heads // grouped * n, d)
    scores = jnp.einsum("bhnd,bhmd->bhnm", rows, key).astype(jnp.float32)
    scores = scores if softcap is None else softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores = (scores.reshape(batch, heads, n, m) + bias).reshape(scores.shape)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    mixed = jnp.einsum("bhnm,bhmd->bhnd", weights.astype(value.dtype), value)
    return (mixed / total).astype(value.dtype).reshape(query.shape)
