"""A decoder of text in plain Linen that covers Llama, Mistral, Qwen2, Qwen3 and Gemma 3, by its config.

Kernels keep one path per projection, so that patterns over paths read naturally: `embed/embedding` (vocabulary, d),
`layer_3/attention/query/kernel` (d, heads, head_dim), `layer_3/attention/key/kernel` (d, key heads, head_dim), `value`
alike, `layer_3/attention/out/kernel` (heads, head_dim, d), `layer_3/mlp/gate/kernel` and `up` (d, up),
`layer_3/mlp/down/kernel` (up, d), and `head/kernel` (d, vocabulary) where the output is not tied to the embedding.
There is no dropout: the base is frozen and the adapters are small.

Sources: Touvron et al. 2023, Llama (arXiv 2302.13971): norms before the sublayers, SwiGLU, rotary positions; Jiang et
al. 2023, Mistral 7B (arXiv 2310.06825): windows; Gemma Team 2025, Gemma 3 (arXiv 2503.19786): norms around sublayers,
local and global layers. The numbers are held against transformers in `tests/models/test_decoder.py`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax
from jaxtyping import Bool, Float, Int

from share_jax.errors import InputError, message
from share_jax.models.attention import attend_heads
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.kv_cache import Cache, KeyValue, written
from share_jax.models.rotary import angles, inverse_frequencies, rotate
from share_jax.models.split_point import START, Cut, Sublayer, check_cut, parts
from share_jax.ops.token_scores import BLOCK, TokenScores, score_in_blocks, scores_of
from share_jax.typing import Array

_MASKED = -1e9


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
            self.query_norm = _norm(c, self.dtype)
            self.key_norm = _norm(c, self.dtype)

    def __call__(
        self,
        x: Float[Array, "batch n d"],
        view: View,
        past: KeyValue | None = None,
        place: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch n d"], KeyValue]:
        """The output, and keys and values: those of `x`, or `past` with them written from `place` on."""
        query, key = self.query(x), self.key(x)
        if self.config.head_norms:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (jnp.swapaxes(each, 1, 2) for each in (query, key, self.value(x)))
        query, key = (rotate(each, view.cosines, view.sines) for each in (query, key))
        new = KeyValue(key, value)
        kept = new if past is None or place is None else written(past, new, place)
        scaled = query * jnp.asarray(self.config.query_scale, query.dtype)
        mixed = attend_heads(scaled, kept.key, kept.value, view.bias, self.config.attention_softcap)
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
        self.attention_norm = _norm(c, self.dtype)
        self.mlp = DecoderMlp(c, self.dtype)
        self.mlp_norm = _norm(c, self.dtype)
        if c.norms_around:
            self.attention_post_norm = _norm(c, self.dtype)
            self.mlp_post_norm = _norm(c, self.dtype)

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

    def attend(self, x: Float[Array, "batch n d"], view: View) -> Float[Array, "batch n d"]:
        """The first sublayer."""
        mixed, _ = self.attention(self.attention_norm(x), view)
        return x + (self.attention_post_norm(mixed) if self.config.norms_around else mixed)

    def feed(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """The second sublayer."""
        fed = self.mlp(self.mlp_norm(x))
        return x + (self.mlp_post_norm(fed) if self.config.norms_around else fed)

    def __call__(self, x: Float[Array, "batch n d"], view: View) -> Float[Array, "batch n d"]:
        """Runs the layer."""
        return self.feed(self.attend(x, view))


class Decoder(nn.Module):
    """A decoder of text, which can stop before, or start at, any layer.

    An `attention_mask` numbers documents: a token sees itself and those before it of the same number, and positions
    count from 0 in each document. So 1 for tokens and 0 for padding, on either side, is a plain mask; 1, 2, 3 are
    several short texts in one row. Without one, each row is one text.

    What lies below the cut is meant to stay frozen and unadapted, so that its output can be computed once per text by
    `prefix` and given back as `hidden`.

    Attributes:
        config: the form.
        dtype: compute type; logits are float32.
        first_layer: the layer at which a given `hidden` enters, in [0, num_hidden_layers].
        first_sublayer: where in that layer: before its attention, or between that and its "ffn".

    >>> import jax
    >>> config = DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 32)
    >>> model, ids = Decoder(config), jnp.ones((1, 5), jnp.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> model.apply({"params": params}, ids).shape
    (1, 5, 50)
    """

    config: DecoderConfig
    dtype: Dtype = jnp.float32
    first_layer: int = 0
    first_sublayer: Sublayer = "attention"

    def setup(self) -> None:
        """Names the parts `embed`, `layer_0`, `layer_1`, ..., `norm`, and `head` where the output is not tied."""
        c = self.config
        check_cut(self.cut, c.num_hidden_layers)
        self.embed = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype)
        self.layer = [DecoderLayer(c, self.dtype) for _ in range(c.num_hidden_layers)]
        self.norm = _norm(c, self.dtype)
        if not c.tie_word_embeddings:
            self.head = nn.Dense(c.vocab_size, use_bias=False, dtype=self.dtype)

    @property
    def cut(self) -> Cut:
        """Where `hidden` enters."""
        return Cut(self.first_layer, self.first_sublayer)

    def __call__(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        columns: Int[Array, "batch k"] | None = None,
        targets: Int[Array, "batch k"] | None = None,
    ) -> Float[Array, "batch k vocab"] | TokenScores:
        """Logits of the next token, from token ids or from the `hidden` that `prefix` returned.

        Args:
            input_ids: token ids.
            attention_mask: each token's document; 0 is padding.
            hidden: instead of `input_ids`.
            columns: of each row the positions whose logits are wanted; all, in order, when None.
            targets: the tokens that follow there, -1 where there is none: then their scores come back, and logits are
                held for a block of positions at a time.

        Raises:
            InputError: not exactly one of `input_ids` and `hidden`.
        """
        states = self.hidden_states(input_ids, attention_mask, hidden)
        if columns is not None:
            states = jnp.take_along_axis(states, columns[:, :, None], axis=1)
        return self.project(states) if targets is None else self.scores(states, targets)

    def scores(self, states: Float[Array, "batch k d"], targets: Int[Array, "batch k"]) -> TokenScores:
        """How likely tokens are at states from `hidden_states`; for `share_jax.train.next_token`."""

        def score(model: Decoder, part: Float[Array, "p d"], wanted: Int[Array, " p"]) -> TokenScores:
            return scores_of(model.project(part), wanted)

        kept = nn.remat(score) if targets.size > BLOCK else score
        return score_in_blocks(partial(kept, self), states, targets)

    def hidden_states(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
    ) -> Float[Array, "batch n d"]:
        """The normalised states of the last layer, which `project` turns into logits."""
        if (input_ids is None) == (hidden is None):
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "hidden": hidden}
            given = [name for name, value in inputs.items() if value is not None]
            expected = "input_ids or hidden, with or without attention_mask"
            raise InputError(message("model inputs", got=given, expected=expected, fix="pass exactly these"))
        if hidden is not None:
            return self.norm(self.run(hidden, attention_mask, self.cut))
        return self.norm(self.run(self.embedded(jnp.asarray(input_ids)), attention_mask))

    def project(self, states: Float[Array, "*axes d"]) -> Float[Array, "*axes vocab"]:
        """Logits, float32, of states from `hidden_states`; any of them, in any shape."""
        out = self.embed.attend(states) if self.config.tie_word_embeddings else self.head(states)
        out, cap = out.astype(jnp.float32), self.config.logit_softcap
        return out if cap is None else cap * jnp.tanh(out / cap)

    def prefix(
        self, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"] | None = None
    ) -> Float[Array, "batch n d"]:
        """Embeddings and what lies below the cut: the `hidden` of `__call__`."""
        return self.run(self.embedded(input_ids), attention_mask, last=self.cut)

    def features(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
    ) -> Float[Array, "batch d"]:
        """One vector for each text, float32: the mean of its tokens' last hidden states, as for a router."""
        states = self.hidden_states(input_ids, attention_mask, hidden).astype(jnp.float32)
        if attention_mask is None:
            return states.mean(axis=1)
        weight = (attention_mask != 0).astype(jnp.float32)[:, :, None]
        return (states * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)

    def prefill(
        self, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"]
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits behind the last column, and what later tokens need of all; prompts end at the last column."""
        x, kept = self.embedded(input_ids), []
        seen = self.views(input_ids.shape[0], input_ids.shape[1], attention_mask)
        for index, layer in enumerate(self.layer):
            x, own = layer.extend(x, seen[self._kind(index)])
            kept.append(own)
        return self.project(self.norm(x[:, -1])), tuple(kept)

    def decode(
        self, tokens: Int[Array, " batch"], cache: Cache, place: Int[Array, ""], starts: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits behind one more token of every row, and the cache with it.

        Args:
            tokens: the tokens.
            cache: with room for them.
            place: where in the cache they go, the same in every row.
            starts: of each row the place of its first token.
        """
        x = self.embedded(tokens[:, None])
        everywhere = jnp.arange(cache[0].key.shape[2])
        own = (everywhere[None] >= starts[:, None])[:, None]
        seen = self._views((place - starts)[:, None], place[None], everywhere, own)
        kept = []
        for index, layer in enumerate(self.layer):
            x, new = layer.extend(x, seen[self._kind(index)], cache[index], place)
            kept.append(new)
        return self.project(self.norm(x[:, 0])), tuple(kept)

    def embedded(self, input_ids: Int[Array, "batch n"]) -> Float[Array, "batch n d"]:
        """Token ids to the input of layer 0."""
        x = self.embed(input_ids)
        scale = self.config.embedding_scale
        return x if scale == 1.0 else x * jnp.asarray(scale, x.dtype)

    def run(
        self,
        hidden: Float[Array, "batch n d"],
        attention_mask: Int[Array, "batch n"] | None = None,
        first: Cut = START,
        last: Cut | None = None,
    ) -> Float[Array, "batch n d"]:
        """Runs what lies between two cuts on `hidden`; `last=None` is the end, before the last norm."""
        hidden = hidden.astype(self.dtype)
        seen = self.views(hidden.shape[0], hidden.shape[1], attention_mask)
        for index, part in parts(first, last, len(self.layer)):
            layer, view = self.layer[index], seen[self._kind(index)]
            match part:
                case "attention":
                    hidden = layer.attend(hidden, view)
                case "ffn":
                    hidden = layer.feed(hidden)
                case _:
                    hidden = layer(hidden, view)
        return hidden

    def views(self, batch: int, n: int, attention_mask: Int[Array, "batch n"] | None = None) -> Sequence[View]:
        """What layers know of rows of `n` tokens: one `View` for each window that layers have."""
        columns = jnp.arange(n)
        if attention_mask is None:
            return self._views(columns[None], columns, columns, jnp.ones((1, 1, n), bool))
        before = jnp.concatenate([jnp.full((batch, 1), -1, attention_mask.dtype), attention_mask[:, :-1]], axis=1)
        begins = jnp.where(attention_mask != before, columns[None], 0)
        positions = columns[None] - lax.cummax(begins, axis=1)
        return self._views(positions, columns, columns, attention_mask[:, :, None] == attention_mask[:, None, :])

    def _views(
        self,
        positions: Int[Array, "batch n"],
        rows: Int[Array, " n"],
        columns: Int[Array, " m"],
        seen: Bool[Array, "#batch #n m"],
    ) -> Sequence[View]:
        """Of the tokens at `rows`, which see those at `columns` that `seen` lets them, not before their window."""
        c, out = self.config, []
        for window in _windows(c):
            local = window is not None and c.local_rope_theta is not None
            theta = c.local_rope_theta if local else c.rope_theta
            frequencies = inverse_frequencies(c.head_dim, theta or c.rope_theta, None if local else c.rope_divisors)
            apart = rows[:, None] - columns[None, :]
            causal = apart >= 0 if window is None else (apart >= 0) & (apart < window)
            bias = jnp.where(seen & causal[None], 0.0, _MASKED).astype(jnp.float32)[:, None]
            out.append(View(*angles(positions, frequencies), bias))
        return out

    def _kind(self, layer: int) -> int:
        return _windows(self.config).index(self.config.window(layer))


def _windows(config: DecoderConfig) -> tuple[int | None, ...]:
    """Every window that some layer has, once."""
    return (None,) if config.windows is None else tuple(dict.fromkeys(config.windows))


def _norm(config: DecoderConfig, dtype: Dtype) -> RmsNorm:
    return RmsNorm(config.rms_norm_eps, config.scale_plus_one, dtype)
