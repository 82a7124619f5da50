"""A BERT encoder and classifier in plain Linen.

Kernels keep one path per projection, so that patterns over paths read naturally:
`encoder/layer_3/attention/query/kernel` (d, heads, head_dim), `encoder/layer_3/attention/out/kernel`
(heads, head_dim, d), `encoder/layer_3/ffn_up/kernel` (d, 4d), `encoder/layer_3/ffn_down/kernel` (4d, d) and
`head/kernel` (d, classes).
There is no dropout: the base is frozen and the adapters are small.

Source: Devlin et al. 2019, BERT (post-norm encoder layers); mean pooling and unit length follow
Reimers and Gurevych 2019, Sentence-BERT.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from share_jax.annotations import Float, Int
from share_jax.errors import FormatError, InputError, message
from share_jax.models.attention import attend
from share_jax.models.gelu import exact_gelu
from share_jax.models.split_point import START, Cut, Sublayer, check_cut, parts
from share_jax.models.weights import read_config
from share_jax.typing import Array

_MASKED = -1e9


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder, under the names of its `config.json`.

    Attributes:
        padding_index: the token that fills texts up, where places are counted past it as RoBERTa does: a text's first
            token has place `padding_index + 1`, and padding has place `padding_index`. None counts columns from 0.

    Raises:
        InputError: a size is no whole number of at least 1; the heads do not divide `hidden_size`; `hidden_act` or
            `position_embedding_type` is not the one that this encoder computes.

    Example:
        >>> config = BertConfig(60, 16, 2, 2, 32, 20)
        >>> config.head_dim
        8
        >>> dataclasses.replace(config, num_attention_heads=3)
        Traceback (most recent call last):
        share_jax.errors.InputError: hidden_size: got 16, expected a multiple of num_attention_heads=3; ...
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"
    padding_index: int | None = None

    def __post_init__(self) -> None:
        """Checks the fields."""
        for name in (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size",
        ):  # fmt: skip
            if not isinstance(value := getattr(self, name), int) or value < 1:
                expected = "a whole number of at least 1"
                raise InputError(message(name, got=repr(value), expected=expected, fix="correct the config"))
        if self.hidden_size % self.num_attention_heads:
            expected = f"a multiple of num_attention_heads={self.num_attention_heads}"
            raise InputError(message("hidden_size", got=self.hidden_size, expected=expected, fix="correct the config"))
        for name, expected in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if (value := getattr(self, name)) != expected:
                raise InputError(message(name, got=value, expected=expected, fix="take another checkpoint"))

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> "BertConfig":
        """Reads a `config.json`; keys that say nothing about the encoder's form are passed over.

        Raises:
            FormatError: the file cannot be read, is not JSON, or lacks a size.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        raw = read_config(Path(path), "a BERT")
        known = {name: raw[name] for name in raw if name in fields}
        required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
        if missing := sorted(required - set(known)):
            raise FormatError(
                message(str(path), got=f"no {missing}", expected="a BERT config", fix="take a BERT checkpoint")
            )
        return cls(**known)


class BertEmbeddings(nn.Module):
    """Sum of word, position and token-type (always 0) embeddings, then LayerNorm."""

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, input_ids: Int[Array, "batch n"]) -> Float[Array, "batch n d"]:
        """Embeds token ids."""
        c = self.config
        length = input_ids.shape[1]
        longest = c.max_position_embeddings - (0 if c.padding_index is None else c.padding_index + 1)
        if length > longest:
            expected = f"at most {longest}"
            raise InputError(message("tokens per text", got=length, expected=expected, fix="lower max_length"))
        position = nn.Embed(c.max_position_embeddings, c.hidden_size, dtype=self.dtype, name="position")
        kind = nn.Embed(c.type_vocab_size, c.hidden_size, dtype=self.dtype, name="token_type")
        word = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype, name="word")
        columns = jnp.arange(length)[None]
        if c.padding_index is not None:
            real = (input_ids != c.padding_index).astype(jnp.int32)
            columns = jnp.cumsum(real, axis=1) * real + c.padding_index
        places = position(columns) + kind(jnp.zeros((1, length), jnp.int32))
        return nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype, name="norm")(word(input_ids) + places)


class BertAttention(nn.Module):
    """Multi-head self-attention with an additive mask; the softmax runs in float32."""

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], bias: Float[Array, "batch 1 1 n"]) -> Float[Array, "batch n d"]:
        """Attends every position to all unmasked ones."""
        c = self.config
        shape = (c.num_attention_heads, c.head_dim)
        query = nn.DenseGeneral(shape, dtype=self.dtype, name="query")(x)
        key = nn.DenseGeneral(shape, dtype=self.dtype, name="key")(x)
        value = nn.DenseGeneral(shape, dtype=self.dtype, name="value")(x)
        mixed = attend(query, key, value, bias)
        return nn.DenseGeneral(c.hidden_size, axis=(-2, -1), dtype=self.dtype, name="out")(mixed)


class BertLayer(nn.Module):
    """One post-norm encoder layer: attention and a perceptron with erf GELU, each with a residual."""

    config: BertConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts `attention`, `attention_norm`, `ffn_up`, `ffn_down`, `ffn_norm`."""
        c = self.config
        self.attention = BertAttention(c, self.dtype)
        self.attention_norm = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)
        self.ffn_up = nn.Dense(c.intermediate_size, dtype=self.dtype)
        self.ffn_down = nn.Dense(c.hidden_size, dtype=self.dtype)
        self.ffn_norm = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)

    def attend(self, x: Float[Array, "batch n d"], bias: Float[Array, "batch 1 1 n"]) -> Float[Array, "batch n d"]:
        """The first sublayer."""
        return self.attention_norm(x + self.attention(x, bias))

    def feed(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """The second sublayer."""
        return self.ffn_norm(x + self.ffn_down(exact_gelu(self.ffn_up(x))))

    def __call__(self, x: Float[Array, "batch n d"], bias: Float[Array, "batch 1 1 n"]) -> Float[Array, "batch n d"]:
        """Runs the layer."""
        return self.feed(self.attend(x, bias))


class BertEncoder(nn.Module):
    """The whole encoder, which can stop before, or start at, any layer.

    Attributes:
        config: the sizes.
        dtype: compute type; parameters stay float32.
    """

    config: BertConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts `embeddings`, `layer_0`, `layer_1`, ..."""
        self.embeddings = BertEmbeddings(self.config, self.dtype)
        self.layer = [BertLayer(self.config, self.dtype) for _ in range(self.config.num_hidden_layers)]

    def __call__(
        self, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"]
    ) -> Float[Array, "batch n d"]:
        """Token ids to the last layer's hidden states."""
        return self.run(self.embed(input_ids), attention_mask)

    def embed(self, input_ids: Int[Array, "batch n"]) -> Float[Array, "batch n d"]:
        """Token ids to the input of layer 0."""
        return self.embeddings(input_ids)

    def run(
        self,
        hidden: Float[Array, "batch n d"],
        attention_mask: Int[Array, "batch n"],
        first: Cut = START,
        last: Cut | None = None,
    ) -> Float[Array, "batch n d"]:
        """Runs what lies between two cuts on `hidden`; `last=None` is the end."""
        hidden = hidden.astype(self.dtype)
        bias = jnp.where(attention_mask == 0, _MASKED, 0.0).astype(jnp.float32)[:, None, None, :]
        for index, part in parts(first, last, len(self.layer)):
            layer = self.layer[index]
            match part:
                case "attention":
                    hidden = layer.attend(hidden, bias)
                case "ffn":
                    hidden = layer.feed(hidden)
                case _:
                    hidden = layer(hidden, bias)
        return hidden


class BertClassifier(nn.Module):
    """Encoder, mean pooling over the unmasked tokens, and one linear head.

    What lies below the cut is meant to stay frozen and unadapted. So its output can be computed once per text by
    `prefix`, and given back as `hidden`. Where nothing is adapted, `features` can be, and given back as `pooled`.

    Attributes:
        config: the encoder's sizes.
        num_classes: width of the logits.
        first_layer: the layer at which a given `hidden` enters, in [0, num_hidden_layers].
        dtype: compute type of the encoder; pooling, head and logits are float32.
        normalize: scale the pooled vector to length sqrt(d) (unit length times a constant that keeps its
            entries near one) before the head.
        first_sublayer: where in that layer: before its attention, or between that and its "ffn".

    Example:
        >>> import jax
        >>> config, tokens = BertConfig(60, 16, 2, 2, 32, 20), jnp.ones((3, 5), jnp.int32)
        >>> model = BertClassifier(config, num_classes=4)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens)["params"]
        >>> params["encoder"]["layer_1"]["ffn_up"]["kernel"].shape
        (16, 32)
        >>> jax.eval_shape(model.apply, {"params": params}, tokens, tokens).shape
        (3, 4)
    """

    config: BertConfig
    num_classes: int
    first_layer: int = 0
    dtype: Dtype = jnp.float32
    normalize: bool = False
    first_sublayer: Sublayer = "attention"

    def setup(self) -> None:
        """Names the parts `encoder` and `head`."""
        self.check()
        self.encoder = BertEncoder(self.config, self.dtype)
        self.head = nn.Dense(self.num_classes)

    def check(self) -> None:
        """Refuses fields that are out of range."""
        check_cut(self.cut, self.config.num_hidden_layers)
        if self.num_classes < 1:
            raise InputError(
                message(
                    "num_classes",
                    got=self.num_classes,
                    expected="at least 1",
                    fix="pass the classes' number",
                )
            )

    @property
    def cut(self) -> Cut:
        """Where `hidden` enters."""
        return Cut(self.first_layer, self.first_sublayer)

    @property
    def sees_first(self) -> bool:
        """Whether the pooled vector is the last state of the first token, and not a mean over all."""
        return False

    def prefix(
        self, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"]
    ) -> Float[Array, "batch n d"]:
        """Embeddings and what lies below the cut: the `hidden` of `__call__`."""
        return self.encoder.run(self.encoder.embed(input_ids), attention_mask, last=self.cut)

    def features(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        pooled: Float[Array, "batch d"] | None = None,
    ) -> Float[Array, "batch d"]:
        """The pooled vector that the head sees, float32."""
        if pooled is not None and input_ids is None and hidden is None:
            return pooled
        if attention_mask is not None and input_ids is not None and hidden is None and pooled is None:
            hidden = self.prefix(input_ids, attention_mask)
        elif attention_mask is None or input_ids is not None or hidden is None or pooled is not None:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "hidden": hidden, "pooled": pooled}
            given = [name for name, value in inputs.items() if value is not None]
            expected = "attention_mask with either input_ids or hidden, or pooled"
            raise InputError(message("model inputs", got=given, expected=expected, fix="pass exactly these"))
        return self.pooled(self.encoder.run(hidden, attention_mask, self.cut).astype(jnp.float32), attention_mask)

    def pooled(
        self, hidden: Float[Array, "batch n d"], attention_mask: Int[Array, "batch n"]
    ) -> Float[Array, "batch d"]:
        """One vector for each text: the mean over its tokens."""
        weight = attention_mask.astype(jnp.float32)[:, :, None]
        pooled = (hidden * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)
        if self.normalize:
            size = jnp.linalg.norm(pooled, axis=-1, keepdims=True)
            pooled = pooled * (pooled.shape[-1] ** 0.5 / jnp.maximum(size, 1e-12))
        return pooled

    def __call__(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        pooled: Float[Array, "batch d"] | None = None,
    ) -> Float[Array, "batch classes"]:
        """Logits from token ids, from the `hidden` that `prefix` returned, or from the `pooled` that `features` did.

        Raises:
            InputError: not exactly one of the three, or no `attention_mask` with the first two.
        """
        return self.head(self.features(input_ids, attention_mask, hidden, pooled))
