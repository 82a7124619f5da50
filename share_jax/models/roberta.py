"""RoBERTa for classification and regression in Linen: BERT's encoder, places counted past the padding, its own head.

Paths are those of `share_jax.models.bert`, and `head/dense/kernel` (d, d), `head/out/kernel` (d, outputs).

Source: Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach" (arXiv 1907.11692).
"""

import os
from dataclasses import replace

import jax.numpy as jnp
from flax import linen as nn

from share_jax.annotations import Float, Int
from share_jax.errors import FormatError, message
from share_jax.formats.flax_names import Leaf, dense, within
from share_jax.models.bert import BertClassifier, BertConfig, BertEncoder
from share_jax.models.bert_weights import bert_layout
from share_jax.models.weights import local_folder, params_of, read_config, read_safetensors, without_prefix
from share_jax.typing import Array

HUB_NAME = "roberta-base"
_UNUSED = (
    "embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias",
    "lm_head.bias", "lm_head.decoder.bias", "lm_head.decoder.weight", "lm_head.dense.bias", "lm_head.dense.weight",
    "lm_head.layer_norm.bias", "lm_head.layer_norm.weight",
)  # fmt: skip
"""Names that a checkpoint may hold and that the encoder does not need."""


class RobertaHead(nn.Module):
    """A dense layer with tanh, then the outputs, float32."""

    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch d"]) -> Float[Array, "batch outputs"]:
        """Runs the head."""
        return nn.Dense(self.outputs, name="out")(nn.tanh(nn.Dense(x.shape[-1], name="dense")(x)))


class RobertaClassifier(BertClassifier):
    """Encoder, the first token's state, and RoBERTa's head of two layers; otherwise as `BertClassifier`.

    Example:
        >>> import jax
        >>> config, tokens = BertConfig(60, 16, 2, 2, 32, 20, padding_index=1), jnp.full((3, 5), 7)
        >>> model = RobertaClassifier(config, num_classes=4)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), tokens, jnp.ones((3, 5)))["params"]
        >>> sorted(params["head"])
        ['dense', 'out']
    """

    def setup(self) -> None:
        """Names the parts `encoder` and `head`."""
        self.check()
        self.encoder = BertEncoder(self.config, self.dtype)
        self.head = RobertaHead(self.num_classes)

    @property
    def sees_first(self) -> bool:
        """Whether the pooled vector is the last state of the first token, and not a mean over all."""
        return True

    def pooled(
        self, hidden: Float[Array, "batch n d"], attention_mask: Int[Array, "batch n"]
    ) -> Float[Array, "batch d"]:
        """One vector for each text: the last state of its first token."""
        return hidden[:, 0]


def load_roberta(weights: str | os.PathLike[str] | None) -> tuple[BertConfig, dict]:
    """Reads a folder with `config.json` and `model.safetensors` into a config and the `params` of its encoder, float32.

    The names are those of the Hugging Face hub, with or without `roberta.` before them; a language-model head and a
    pooler may be there, and nothing else.

    Raises:
        FormatError: there is no such folder; a file cannot be read or is not RoBERTa's; a tensor is missing,
            unexpected, wrong-shaped or not of floats.

    Example:
        >>> config, encoder = load_roberta("roberta")  # a folder of the Hugging Face hub
        >>> config.padding_index, sorted(encoder)[:2]
        (1, ['embeddings', 'layer_0'])
    """
    folder = local_folder(weights, HUB_NAME, "config.json, model.safetensors and tokenizer.json")
    where = folder / "config.json"
    raw = read_config(where, "a RoBERTa")
    padding = raw.get("pad_token_id", 1)
    if raw.get("model_type") != "roberta" or not isinstance(padding, int) or padding < 0:
        got = f"model_type {raw.get('model_type')!r} and pad_token_id {padding!r}"
        raise FormatError(
            message(str(where), got=got, expected="a RoBERTa and a token's number", fix="take roberta-base")
        )
    config = replace(BertConfig.from_json(where), padding_index=padding)
    path = folder / "model.safetensors"
    tensors = without_prefix(read_safetensors(path), "roberta.", str(path))
    return config, params_of(bert_layout(config), tensors, str(path), "a RoBERTa encoder", _UNUSED)


def fresh_head(key: Array, outputs: int, width: int) -> dict:
    """Params of a new head."""
    return dict(RobertaHead(outputs).init(key, jnp.zeros((1, width)))["params"])


def roberta_names(config: BertConfig, num_classes: int) -> dict[str, Leaf]:
    """The names of `RobertaForSequenceClassification` for a `RobertaClassifier`.

    Args:
        config: the encoder's sizes.
        num_classes: width of the head.

    Example:
        >>> names = roberta_names(BertConfig(60, 16, 2, 2, 32, 20, padding_index=1), num_classes=4)
        >>> names["classifier.out_proj.weight"].place
        'head/out/kernel'
    """
    size = (config.hidden_size,)
    encoder = within(bert_layout(config), "roberta", ("encoder",))
    first = dense(("head", "dense"), "classifier.dense", size, size)
    return encoder | first | dense(("head", "out"), "classifier.out_proj", size, (num_classes,))
