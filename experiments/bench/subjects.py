"""The models that are measured, in Flax with drawn weights, and what their twins in torch are made of.

The vision transformer is that of `share_jax.models.vit` with a class token: hidden 192, 12 layers, 3 heads, 65
tokens. The text encoder has the sizes of all-MiniLM-L6-v2. Weights are drawn, since only their shapes matter for
speed; the same weights and inputs go to the torch twins, and a suite compares the logits of both before it measures
anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from share_jax.models.bert import BertClassifier, BertConfig
from share_jax.models.vit import VitClassifier, VitConfig
from share_jax.train.losses import classification
from share_jax.train.update import Loss

CLASSES, BATCH, RANK, ALPHA = 15, 32, 8, 16.0
HEADS = (r"head/kernel", r"head/bias")

KERNELS = r"(attention/(query|key|value|out)|ffn_up|ffn_down)/kernel"
EVERY = "all kernels"
QUERY_VALUE = "query and value"
FFN_DOWN = "FFN-down"
TARGETS = {
    EVERY: rf"encoder/layer_\d+/{KERNELS}",
    QUERY_VALUE: r"encoder/layer_\d+/attention/(query|value)/kernel",
    FFN_DOWN: r"encoder/layer_\d+/ffn_down/kernel",
}
"""Patterns over kernel paths by name."""


@dataclass(frozen=True)
class Subject:
    """A model with inputs: what a suite measures.

    Attributes:
        name: of the model and its inputs, as it stands in the results.
        model: in Flax.
        params: its parameters.
        inputs: one batch, by the names of the model's arguments.
        labels: int32 (batch,).
        twin: what the torch twin is made of, plain data.
        heads: patterns over the parameters that each task owns whole.
        loss: of the model's output and a batch.
    """

    name: str
    model: nn.Module = field(repr=False)
    params: dict[str, Any] = field(repr=False)
    inputs: dict[str, Any] = field(repr=False)
    labels: Any = field(repr=False)
    twin: dict[str, Any] = field(repr=False)
    heads: tuple[str, ...] = HEADS
    loss: Loss = field(repr=False, default=classification)

    @property
    def base(self) -> dict[str, Any]:
        """The frozen variables."""
        return {"params": self.params}

    @property
    def example(self) -> dict[str, Any]:
        """The inputs that `adapt` is shown: without those that choose which of a decoder's outputs are wanted."""
        return {name: array for name, array in self.inputs.items() if name not in ("columns", "targets")}

    @property
    def batch(self) -> dict[str, Any]:
        """The batch as a train step takes it."""
        return {"inputs": self.inputs, "labels": self.labels}


@cache
def vit(dtype: str = "float32", tiny: bool = False) -> Subject:
    """The vision transformer on images of 32 pixels a side in patches of 4, 64 patches and a class token."""
    sizes: dict[str, Any] = {"hidden_size": 192, "num_layers": 12, "num_heads": 3, "intermediate_size": 768}
    if tiny:
        sizes = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 16}
    config = VitConfig(image_size=8 if tiny else 32, patch_size=4, class_token=True, **sizes)
    model = VitClassifier(config, CLASSES, dtype=jnp.dtype(dtype))
    side = config.image_size
    images = jax.random.normal(jax.random.key(1), (4 if tiny else BATCH, side, side, 3))
    return _subject("tiny vit" if tiny else "vit", model, {"images": images}, vit_twin(config))


@cache
def vit_b(batch: int, dtype: str) -> Subject:
    """ViT-B/16 on images of 224 pixels a side: hidden 768, 12 layers, 12 heads, 197 tokens."""
    config = VitConfig(224, 16, 768, 12, 12, 3072, class_token=True)
    images = jax.random.normal(jax.random.key(1), (batch, 224, 224, 3))
    model = VitClassifier(config, CLASSES, dtype=jnp.dtype(dtype))
    return _subject("vit-b", model, {"images": images}, vit_twin(config))


def vit_twin(config: VitConfig) -> dict[str, Any]:
    """What the torch twin of a vision transformer is made of."""
    names = ("image_size", "patch_size", "hidden_size", "num_layers", "num_heads", "intermediate_size")
    sizes = {name: getattr(config, name) for name in names}
    return {"model": "vit", "classes": CLASSES, "act": "gelu_pytorch_tanh", **sizes}


@cache
def minilm(tokens: int, dtype: str = "float32", tiny: bool = False, layers: int = 6, first_layer: int = 0) -> Subject:
    """The text encoder on batches without padding."""
    config = BertConfig(
        vocab_size=50 if tiny else 30522,
        hidden_size=8 if tiny else 384,
        num_hidden_layers=min(layers, 3) if tiny else layers,
        num_attention_heads=2 if tiny else 12,
        intermediate_size=16 if tiny else 1536,
        max_position_embeddings=tokens if tiny else 512,
    )
    model = BertClassifier(config, CLASSES, first_layer, jnp.dtype(dtype))
    batch = 4 if tiny else BATCH
    ids = jax.random.randint(jax.random.key(1), (batch, tokens), 1, config.vocab_size)
    inputs = {"input_ids": ids, "attention_mask": jnp.ones((batch, tokens), jnp.int32)}
    twin = {
        "model": "bert",
        "classes": CLASSES,
        "act": "gelu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "positions": config.max_position_embeddings,
    }
    return _subject(f"{'tiny ' if tiny else ''}minilm, {tokens} tokens", model, inputs, twin)


def _subject(name: str, model: nn.Module, inputs: dict[str, Any], twin: dict[str, Any]) -> Subject:
    batch = next(iter(inputs.values())).shape[0]
    params = jax.jit(model.init)(jax.random.key(0), **inputs)["params"]
    labels = jax.random.randint(jax.random.key(2), (batch,), 0, CLASSES)
    return Subject(name, model, params, inputs, labels, twin)


def torch_weights(params: dict[str, Any], twin: dict[str, Any]) -> dict[str, np.ndarray]:
    """The parameters under the names and in the layout of the torch twin: kernels (out, in)."""
    from share_jax.trees import flat

    out: dict[str, np.ndarray] = {}
    for path, leaf in flat(params).items():
        array = np.asarray(leaf, np.float32)
        if (
            path == "encoder/patch/kernel"
        ):  # (rows * columns * channels, d): a convolution's (d, channels, rows, columns)
            size = twin["patch_size"]
            array = array.reshape(size, size, -1, array.shape[-1]).transpose(3, 2, 0, 1)
        elif path.endswith("kernel"):
            inputs = array.shape[0] if "/attention/out/" not in path else array.shape[0] * array.shape[1]
            array = array.reshape(inputs, -1).T
        elif path.endswith("bias"):
            array = array.reshape(-1)
        elif path == "encoder/class_token":  # (d,): torch's has a batch of one token
            array = array.reshape(1, 1, -1)
        elif path == "encoder/position":  # (n, d): torch's has a batch axis
            array = array[None]
        out[_renamed(path, _NAMES[twin["model"]])] = np.ascontiguousarray(array)
    return out


_LEAVES = (("/kernel", ".weight"), ("/scale", ".weight"), ("/embedding", ".weight"), ("/bias", ".bias"))
_NAMES: dict[str, Sequence[tuple[str, str]]] = {
    "vit": (
        ("encoder/class_token", "body.embeddings.cls_token"),
        ("encoder/position", "body.embeddings.position_embeddings"),
        ("encoder/patch", "body.embeddings.patch_embeddings.projection"), ("encoder/norm", "body.layernorm"),
        ("encoder/layer_", "body.layers."), ("/attention/query", ".attention.q_proj"),
        ("/attention/key", ".attention.k_proj"), ("/attention/value", ".attention.v_proj"),
        ("/attention/out", ".attention.o_proj"), ("/attention_norm", ".layernorm_before"),
        ("/ffn_norm", ".layernorm_after"), ("/ffn_up", ".mlp.fc1"), ("/ffn_down", ".mlp.fc2"),
    ),
    "bert": (
        ("encoder/embeddings/word", "body.embeddings.word_embeddings"),
        ("encoder/embeddings/position", "body.embeddings.position_embeddings"),
        ("encoder/embeddings/token_type", "body.embeddings.token_type_embeddings"),
        ("encoder/embeddings/norm", "body.embeddings.LayerNorm"), ("encoder/layer_", "body.encoder.layer."),
        ("/attention/query", ".attention.self.query"), ("/attention/key", ".attention.self.key"),
        ("/attention/value", ".attention.self.value"), ("/attention/out", ".attention.output.dense"),
        ("/attention_norm", ".attention.output.LayerNorm"), ("/ffn_norm", ".output.LayerNorm"),
        ("/ffn_up", ".intermediate.dense"), ("/ffn_down", ".output.dense"),
    ),
}  # fmt: skip


def _renamed(path: str, names: Sequence[tuple[str, str]]) -> str:
    for old, new in (*names, *_LEAVES):
        path = path.replace(old, new)
    return path
