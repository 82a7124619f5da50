"""The weights of a BERT encoder in a Hugging Face folder: their names there, and where they go here.

A checkpoint may be that of the encoder or of a whole model; heads are passed over.
"""

import os
from pathlib import Path

from share_jax.formats.flax_names import Leaf, dense, norm, within
from share_jax.models.bert import BertConfig
from share_jax.models.weights import params_of, read_safetensors, without_prefix

_HEADS = (
    "pooler.dense", "classifier", "qa_outputs", "cls.seq_relationship", "cls.predictions.decoder",
    "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
)  # fmt: skip
_UNUSED = (
    "embeddings.position_ids", "cls.predictions.bias",
    *(f"{name}.{part}" for name in _HEADS for part in ("weight", "bias")),
)  # fmt: skip
"""Names that a checkpoint may hold and that mean pooling does not need."""

_NORMS = {"gamma": "weight", "beta": "bias"}
"""What the first checkpoints call the parameters of a layer norm."""


def load_bert(folder: str | os.PathLike[str]) -> tuple[BertConfig, dict]:
    """Reads `config.json` and `model.safetensors` into a config and the `params` of `BertEncoder`, float32.

    Strict: every parameter of the encoder must be there with its shape, under its own name or with `bert.` before it.
    Nothing else may be, except position ids, a pooler and heads, which mean pooling does not use.

    Raises:
        FormatError: a file cannot be read; a tensor is missing, unexpected, wrong-shaped or not of floats.

    Example:
        >>> config, encoder = load_bert("bert")  # a folder of the Hugging Face hub
        >>> config.num_hidden_layers, encoder["layer_0"]["ffn_up"]["kernel"].shape
        (2, (16, 32))
    """
    config = BertConfig.from_json(Path(folder) / "config.json")
    path = Path(folder) / "model.safetensors"
    tensors = without_prefix(read_safetensors(path), "bert.", str(path))
    tensors = {_today(name): tensor for name, tensor in tensors.items()}
    return config, params_of(bert_layout(config), tensors, str(path), "a BERT encoder", _UNUSED)


def _today(name: str) -> str:
    """A tensor's name as today's checkpoints have it."""
    module, _, part = name.rpartition(".")
    return f"{module}.{_NORMS[part]}" if module.endswith("LayerNorm") and part in _NORMS else name


def bert_layout(config: BertConfig) -> dict[str, Leaf]:
    """Where every tensor of a BERT encoder goes, by its name in the checkpoint."""
    d, up = config.hidden_size, config.intermediate_size
    split = (config.num_attention_heads, config.head_dim)
    out: dict[str, Leaf] = {}
    for name, part, rows in (
        ("word_embeddings", "word", config.vocab_size),
        ("position_embeddings", "position", config.max_position_embeddings),
        ("token_type_embeddings", "token_type", config.type_vocab_size),
    ):
        out[f"embeddings.{name}.weight"] = Leaf(("embeddings", part, "embedding"), (rows, d), (rows, d))
    out |= norm(("embeddings", "norm"), "embeddings.LayerNorm", d)
    for index in range(config.num_hidden_layers):
        old, new = f"encoder.layer.{index}", f"layer_{index}"
        for part in ("query", "key", "value"):
            out |= dense((new, "attention", part), f"{old}.attention.self.{part}", (d,), split)
        out |= dense((new, "attention", "out"), f"{old}.attention.output.dense", split, (d,))
        out |= norm((new, "attention_norm"), f"{old}.attention.output.LayerNorm", d)
        out |= dense((new, "ffn_up"), f"{old}.intermediate.dense", (d,), (up,))
        out |= dense((new, "ffn_down"), f"{old}.output.dense", (up,), (d,))
        out |= norm((new, "ffn_norm"), f"{old}.output.LayerNorm", d)
    return out


def bert_names(config: BertConfig, num_classes: int) -> dict[str, Leaf]:
    """PyTorch's names of a `BertClassifier`: `bert.encoder...` as the Hugging Face hub has them, and `classifier`.

    Args:
        config: the encoder's sizes.
        num_classes: width of the head.

    Example:
        >>> names = bert_names(BertConfig(60, 16, 2, 2, 32, 20), num_classes=4)
        >>> names["bert.encoder.layer.0.output.dense.weight"].place
        'encoder/layer_0/ffn_down/kernel'
    """
    encoder = within(bert_layout(config), "bert", ("encoder",))
    return encoder | dense(("head",), "classifier", (config.hidden_size,), (num_classes,))
