"""Rotary position embeddings: each pair of a head's entries is turned by an angle that grows with the position.

Entry i of the first half of a head and entry i of its second half are a pair, as the Hugging Face hub stores kernels.

Source: Su et al. 2021, "RoFormer" (arXiv 2104.09864); the divisors of Llama 3: `rope_type` "llama3" of transformers.
"""

import math

import jax.numpy as jnp
import numpy as np

from share_jax.annotations import Float, Int
from share_jax.errors import InputError, message
from share_jax.typing import Array


def inverse_frequencies(head_dim: int, theta: float, divisors: tuple[float, ...] | None = None) -> np.ndarray:
    """Radians per position of every pair, float32 (head_dim / 2,): theta^(-2i / head_dim), over the divisors.

    >>> inverse_frequencies(4, 100.0).tolist(), inverse_frequencies(4, 100.0, (1.0, 8.0)).tolist()
    ([1.0, 0.10000000149011612], [1.0, 0.012500000186264515])
    """
    plain = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    return (plain if divisors is None else plain / np.asarray(divisors)).astype(np.float32)


def llama3_divisors(
    head_dim: int, theta: float, factor: float, low: float, high: float, original: int
) -> tuple[float, ...]:
    """By what Llama 3 divides the frequencies of its longer contexts: fast ones by 1, slow ones by `factor`.

    Args:
        head_dim: of the attention.
        theta: the base.
        factor: of the context's length.
        low: pairs that turn fewer times than this within `original` positions are slow.
        high: those that turn more often are fast; between the two it is a linear mixture of frequencies.
        original: positions that the model was trained on first.

    Raises:
        InputError: `high` is not above `low`, or another number is not above 0.
    """
    if not (high > low and factor > 0 and original > 0):
        got, expected = (
            f"factor {factor}, {low} to {high} turns, {original} positions",
            "high above low, others above 0",
        )
        raise InputError(message("scaling of llama3", got=got, expected=expected, fix="correct the config"))
    out = []
    for frequency in inverse_frequencies(head_dim, theta).astype(np.float64):
        turns = original * frequency / (2 * math.pi)
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(float(1.0 / ((1 - share) / factor + share)))
    return tuple(out)


def angles(
    positions: Int[Array, "batch n"], frequencies: np.ndarray, count: int
) -> tuple[Float[Array, "batch 1 n half"], Float[Array, "batch 1 n half"]]:
    """Cosines and sines for `rotate`, float32.

    They are looked up in a table: a compiler would draw the computation of each into every layer, for every head again.

    Args:
        positions: from 0 on.
        frequencies: of `inverse_frequencies`.
        count: every position is below it.
    """
    turned = (np.arange(count, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    table = jnp.asarray(np.stack([np.cos(turned), np.sin(turned)]), jnp.float32)
    cosines, sines = table.at[:, positions].get(mode="clip")[:, :, None]
    return cosines, sines


def rotate(
    x: Float[Array, "batch heads n d"], cosines: Float[Array, "#batch 1 n half"], sines: Float[Array, "#batch 1 n half"]
) -> Float[Array, "batch heads n d"]:
    """Turns every pair; computed in float32, returned in x's type."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
