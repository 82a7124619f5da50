"""Keys and values of the tokens so far, so that one more token costs one position.

A cache is plain data: for every layer a `KeyValue` with heads in front and room for tokens to come. A program that is
given one by donation writes into it in place.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from share_jax.annotations import Float, Int
from share_jax.typing import Array


class KeyValue(NamedTuple):
    """What one layer keeps of every token.

    Attributes:
        key: turned by its position, (batch, key heads, tokens, head_dim).
        value: of the same shape.
    """

    key: Float[Array, "batch heads m d"]
    value: Float[Array, "batch heads m d"]


Cache = tuple[KeyValue, ...]
"""One `KeyValue` per layer."""


def with_room(cache: Cache, room: int) -> Cache:
    """The cache with `room` empty places behind its tokens.

    >>> layer = KeyValue(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 2, 3, 4)))
    >>> with_room((layer,), 5)[0].key.shape
    (1, 2, 8, 4)
    """
    widths = ((0, 0), (0, 0), (0, room), (0, 0))
    return tuple(KeyValue(jnp.pad(layer.key, widths), jnp.pad(layer.value, widths)) for layer in cache)


def written(layer: KeyValue, new: KeyValue, place: Int[Array, ""]) -> KeyValue:
    """The layer's cache with new tokens from `place` on; what was there is written over."""
    start = (0, 0, place, 0)
    key = lax.dynamic_update_slice(layer.key, new.key.astype(layer.key.dtype), start)
    value = lax.dynamic_update_slice(layer.value, new.value.astype(layer.value.dtype), start)
    return KeyValue(key, value)
