"""How a language model scores given tokens, without logits of more than a block of positions at a time.

Logits are by far the largest array of a decoder: 16 texts of 128 tokens at 49,152 words are 400 MB. So a model is told
the tokens that are wanted and where, projects these positions alone, and returns two numbers for each. Past `BLOCK`
positions they are projected block by block, and computed again in the backward pass: memory stays flat.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from share_jax.annotations import Float, Int
from share_jax.typing import Array

BLOCK = 1024
"""Positions whose logits are held together."""


class TokenScores(NamedTuple):
    """How likely given tokens are.

    Attributes:
        nats: minus the log-probability of each, float32; 0 where none is given.
        right: 1 where it is the likeliest of all, else 0; 1 where none is given.

    Example:
        >>> scores = scores_of(jnp.array([[[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]]]), jnp.array([[1, 2]]))
        >>> [round(float(nats), 3) for nats in scores.nats[0]], scores.right
        ([0.0, 9.0], Array([[1., 0.]], dtype=float32))
    """

    nats: Float[Array, "batch n"]
    right: Float[Array, "batch n"]


def scores_of(logits: Float[Array, "*places vocab"], tokens: Int[Array, "*places"]) -> TokenScores:
    """The scores of one token at each place; a token below 0 is none, one past the vocabulary has NaN.

    Args:
        logits: (..., vocabulary), any float dtype.
        tokens: (...), the token whose score is wanted at each place.

    >>> scores_of(jnp.zeros((1, 2, 4)), jnp.array([[0, -1]])).right
    Array([[1., 1.]], dtype=float32)
    """
    wide = logits.astype(jnp.float32)
    given, inside = tokens >= 0, tokens < logits.shape[-1]
    own = jnp.take_along_axis(wide, jnp.where(given & inside, tokens, 0)[..., None], axis=-1)[..., 0]
    nats = jnp.where(inside, jax.nn.logsumexp(wide, axis=-1) - own, jnp.nan)
    right = jnp.argmax(wide, axis=-1) == tokens
    return TokenScores(jnp.where(given, nats, 0.0), (right | ~given).astype(jnp.float32))


def score_in_blocks(
    score: Callable[[Float[Array, "p d"], Int[Array, " p"]], TokenScores],
    states: Float[Array, "batch n d"],
    tokens: Int[Array, "batch n"],
    block: int | None = None,
) -> TokenScores:
    """Scores of all places, at most `block` of them at a time.

    Args:
        score: projects states and scores tokens; where there are several blocks it should keep nothing for the
            backward pass, as under `jax.checkpoint`.
        states: what is projected.
        tokens: one for each place, below 0 where there is none.
        block: places in one call; `BLOCK` when None.

    Example:
        >>> kernel = jnp.eye(4)
        >>> def score(states, tokens):
        ...     return scores_of(states @ kernel, tokens)
        >>> score_in_blocks(score, jnp.ones((2, 4, 4)), jnp.zeros((2, 4), jnp.int32), block=4).nats.shape
        (2, 4)
    """
    block = BLOCK if block is None else block
    flat, wanted = states.reshape(-1, states.shape[-1]), tokens.reshape(-1)
    parts = [score(flat[i : i + block], wanted[i : i + block]) for i in range(0, len(wanted), block)]
    return TokenScores(*(jnp.concatenate(each).reshape(tokens.shape) for each in zip(*parts, strict=True)))
