"""The next token of every row: the likeliest, or one drawn from the likely ones.

Sources: top-k: Fan et al. 2018 (arXiv 1805.04833); top-p: Holtzman et al. 2020, "The Curious Case of Neural Text
Degeneration" (arXiv 1904.09751).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from share_jax.annotations import Float, Int
from share_jax.errors import InputError, message
from share_jax.number_checks import finite_number, whole_number
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


def sampling(temperature: float, top_k: int | None, top_p: float | None) -> Sampling | None:
    """What a user says, checked; None for the likeliest token, at temperature 0.

    Raises:
        InputError: a number is out of range, or limits a draw where none is made.
    """
    degree = finite_number("temperature", temperature, expected="0 or more", fits=lambda number: number >= 0)
    k = share = None
    if top_k is not None:
        k = whole_number("top_k", top_k, 1, expected="a whole number of at least 1, or None")
    if top_p is not None:
        expected = "above 0 and up to 1, or None"
        share = finite_number("top_p", top_p, expected=expected, fits=lambda number: 0 < number <= 1)
    for name, given in (("top_k", k), ("top_p", share)):
        if degree == 0 and given is not None:
            expected, fix = "none at temperature 0, which draws nothing", "pass a temperature, too, or leave it out"
            raise InputError(message(name, got=given, expected=expected, fix=fix))
    if degree < COLDEST:
        return None
    most = 2**31 - 1
    return Sampling(jnp.float32(degree), jnp.int32(min(k or most, most)), jnp.float32(share or 1.0))


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
