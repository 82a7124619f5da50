"""The next token of every row: the likeliest, or one drawn from the likely ones.

Sources: top-k: Fan et al. 2018 (arXiv 1805.04833); top-p: Holtzman et al. 2020, "The Curious Case of Neural Text
Degeneration" (arXiv 1904.09751).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.annotations import Float, Int
from share_jax.errors import InputError, message
from share_jax.typing import Array, PRNGKey


class Sampling(NamedTuple):
    """How tokens are drawn; numbers, so that another choice compiles nothing.

    Attributes:
        temperature: what logits are divided by.
        top_k: how many of the likeliest tokens are left; all if it is the vocabulary's size or more.
        top_p: the likeliest tokens that together reach this probability are left; all at 1.
    """

    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]


COLDEST = 1e-6
"""Temperatures below it are 0: logits divided by them are no numbers of float32 any more."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def sampling(temperature: float, top_k: int | None, top_p: float | None) -> Sampling | None:
    """What a user says, checked; None for the likeliest token, at temperature 0.

    Raises:
        InputError: a number is out of range, or limits a draw where none is made.
    """
    checks = {
        "temperature": (temperature, _number(temperature) and 0 <= temperature < math.inf, "0 or more"),
        "top_k": (top_k, top_k is None or (_whole(top_k) and top_k >= 1), "a whole number of at least 1, or None"),
        "top_p": (top_p, top_p is None or (_number(top_p) and 0 < top_p <= 1), "above 0 and up to 1, or None"),
    }
    for name, (value, fits, expected) in checks.items():
        if not fits:
            raise InputError(message(name, got=value, expected=expected, fix=f"correct {name}"))
    if temperature == 0 and (unused := [name for name in ("top_k", "top_p") if checks[name][0] is not None]):
        expected, fix = "none at temperature 0, which draws nothing", "pass a temperature, too, or leave it out"
        raise InputError(message(unused[0], got=checks[unused[0]][0], expected=expected, fix=fix))
    if temperature < COLDEST:
        return None
    k = 2**31 - 1 if top_k is None else min(top_k, 2**31 - 1)
    return Sampling(jnp.float32(temperature), jnp.int32(k), jnp.float32(1.0 if top_p is None else top_p))


def likeliest(logits: Float[Array, "batch vocab"]) -> Int[Array, " batch"]:
    """The token of the highest logit; the first of several.

    >>> likeliest(jnp.asarray([[0.0, 2.0, 2.0]])).tolist()
    [1]
    """
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def drawn(keys: PRNGKey, logits: Float[Array, "batch vocab"], how: Sampling) -> Int[Array, " batch"]:
    """A token for each row, each by its own key (batch,): after temperature, top-k, then top-p."""
    scaled = logits / how.temperature
    ordered = -jnp.sort(-scaled, axis=-1)
    size = scaled.shape[-1]
    first = jnp.arange(size)[None] < how.top_k
    likely = jax.nn.softmax(jnp.where(first, ordered, -jnp.inf), axis=-1)
    before = jnp.cumsum(likely, axis=-1) - likely
    least = jnp.min(jnp.where(first & (before < how.top_p), ordered, jnp.inf), axis=-1, keepdims=True)
    left = jnp.where(scaled >= least, scaled, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys, left).astype(jnp.int32)
