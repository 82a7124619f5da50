"""The layers of a decoder of text: attention and a gated perceptron, each on normalised input.

Sources as of `decoder`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax

from share_jax.annotations import Float, Int
from share_jax.models.attention import attend_heads
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.kv_cache import KeyValue, written
from share_jax.models.rotary import rotate
from share_jax.typing import Array


class View(NamedTuple):
    """What layers with one window know of where tokens stand.

    Attributes:
        cosines: of the tokens that attend, for `rotate`.
        sines: the same.
        bias: 0 where a token sees another, else far below; float32.
    """

    cosines: Float[Array, "#batch 1 n half"]
    sines: Float[Array, "#batch 1 n half"]
    bias: Float[Array, "#batch 1 n m"]

    def at(self, columns: Int[Array, "batch k"]) -> "View":
        """What the tokens at some columns of each row know."""
        return View(*(picked(jnp.broadcast_to(each, (len(columns), *each.shape[1:])), columns) for each in self))


class RmsNorm(nn.Module):
    """x / sqrt(mean of x^2 + epsilon), times a learnt scale, or 1 + scale; in float32.

    Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv 1910.07467).
    """

    epsilon: float
    plus_one: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*axes d"]) -> Float[Array, "*axes d"]:
        """Normalises the last axis."""
        start = nn.initializers.zeros_init() if self.plus_one else nn.initializers.ones_init()
        scale = self.param("scale", start, (x.shape[-1],), jnp.float32).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        size = lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        scale = (1.0 + scale) if self.plus_one else scale
        return (wide * size * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(self.dtype)


class DecoderAttention(nn.Module):
    """Causal self-attention with rotary positions; query heads may share key heads."""

    config: DecoderConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts `query`, `key`, `value`, `out`, and `query_norm`, `key_norm` where heads are normalised."""
        c = self.config
        own, shared = (c.num_attention_heads, c.head_dim), (c.num_key_value_heads, c.head_dim)
        self.query = nn.DenseGeneral(own, use_bias=c.qkv_bias, dtype=self.dtype)
        self.key = nn.DenseGeneral(shared, use_bias=c.qkv_bias, dtype=self.dtype)
        self.value = nn.DenseGeneral(shared, use_bias=c.qkv_bias, dtype=self.dtype)
        self.out = nn.DenseGeneral(c.hidden_size, axis=(-2, -1), use_bias=c.out_bias, dtype=self.dtype)
        if c.head_norms:
            self.query_norm = norm_of(c, self.dtype)
            self.key_norm = norm_of(c, self.dtype)

    def __call__(
        self,
        x: Float[Array, "batch n d"],
        view: View,
        past: KeyValue | None = None,
        place: Int[Array, ""] | None = None,
        columns: Int[Array, "batch k"] | None = None,
    ) -> tuple[Float[Array, "batch k d"], KeyValue]:
        """The output, and keys and values: those of `x`, or `past` with them written from `place` on.

        Args:
            x: normalised states.
            view: where the tokens stand.
            past: keys and values of a cache.
            place: where in it those of `x` go.
            columns: of each row the tokens whose output is wanted; all, in order, when None.
        """
        asking, own = (x, view) if columns is None else (picked(x, columns), view.at(columns))
        query, key = self.query(asking), self.key(x)
        if self.config.head_norms:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (jnp.swapaxes(each, 1, 2) for each in (query, key, self.value(x)))
        query, key = rotate(query, own.cosines, own.sines), rotate(key, view.cosines, view.sines)
        new = KeyValue(key, value)
        kept = new if past is None or place is None else written(past, new, place)
        scaled = query * jnp.asarray(self.config.query_scale, query.dtype)
        causal = past is None and columns is None
        mixed = attend_heads(scaled, kept.key, kept.value, own.bias, self.config.attention_softcap, causal)
        return self.out(jnp.swapaxes(mixed, 1, 2)), kept


class DecoderMlp(nn.Module):
    """down(activation(gate(x)) * up(x))."""

    config: DecoderConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """Runs the perceptron."""
        c = self.config
        gate = nn.Dense(c.intermediate_size, use_bias=c.mlp_bias, dtype=self.dtype, name="gate")(x)
        up = nn.Dense(c.intermediate_size, use_bias=c.mlp_bias, dtype=self.dtype, name="up")(x)
        active = nn.silu(gate) if c.activation == "silu" else nn.gelu(gate, approximate=True)
        return nn.Dense(c.hidden_size, use_bias=c.mlp_bias, dtype=self.dtype, name="down")(active * up)


class DecoderLayer(nn.Module):
    """One layer: attention and a gated perceptron, each on normalised input, with a residual."""

    config: DecoderConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts `attention`, `attention_norm`, `mlp`, `mlp_norm`, and `..._post_norm` where there are."""
        c = self.config
        self.attention = DecoderAttention(c, self.dtype)
        self.attention_norm = norm_of(c, self.dtype)
        self.mlp = DecoderMlp(c, self.dtype)
        self.mlp_norm = norm_of(c, self.dtype)
        if c.norms_around:
            self.attention_post_norm = norm_of(c, self.dtype)
            self.mlp_post_norm = norm_of(c, self.dtype)

    def extend(
        self,
        x: Float[Array, "batch n d"],
        view: View,
        past: KeyValue | None = None,
        place: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch n d"], KeyValue]:
        """The layer with its keys and values, as `DecoderAttention` returns them."""
        mixed, kept = self.attention(self.attention_norm(x), view, past, place)
        return self.feed(x + (self.attention_post_norm(mixed) if self.config.norms_around else mixed)), kept

    def attend(
        self, x: Float[Array, "batch n d"], view: View, columns: Int[Array, "batch k"] | None = None
    ) -> Float[Array, "batch k d"]:
        """The first sublayer, of all tokens or of those at some columns."""
        mixed, _ = self.attention(self.attention_norm(x), view, columns=columns)
        own = x if columns is None else picked(x, columns)
        return own + (self.attention_post_norm(mixed) if self.config.norms_around else mixed)

    def feed(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """The second sublayer."""
        fed = self.mlp(self.mlp_norm(x))
        return x + (self.mlp_post_norm(fed) if self.config.norms_around else fed)

    def __call__(
        self, x: Float[Array, "batch n d"], view: View, columns: Int[Array, "batch k"] | None = None
    ) -> Float[Array, "batch k d"]:
        """Runs the layer; of all tokens, or of those at some columns, which see the others all the same."""
        return self.feed(self.attend(x, view, columns))


def norm_of(config: DecoderConfig, dtype: Dtype) -> RmsNorm:
    return RmsNorm(config.rms_norm_eps, config.scale_plus_one, dtype)


def picked(x: Float[Array, "batch *axes n d"], columns: Int[Array, "batch k"]) -> Float[Array, "batch *axes k d"]:
    """Of each row the vectors at some columns of the last axis but one."""
    index = columns.reshape(len(columns), *(1,) * (x.ndim - 3), -1, 1)
    return jnp.take_along_axis(x, index, axis=-2)
