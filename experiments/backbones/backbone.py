"""A frozen pretrained model with what the methods need to know of it, and the cache of its unadapted layers."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype

from experiments.assets import minilm_folder
from experiments.data.batch_order import LEARNT
from experiments.streams.base import Split
from experiments.streams.digits import digits_split
from share_jax.errors import InputError, message
from share_jax.linen.prefix import linen_prefix
from share_jax.models.bert import BertClassifier
from share_jax.models.bert_weights import load_bert
from share_jax.models.roberta import RobertaClassifier, fresh_head
from share_jax.models.split_point import Cut, Sublayer, check_cut
from share_jax.models.vit import VitClassifier, VitConfig, pretrain_vit
from share_jax.train.batches import eval_batches
from share_jax.train.prefix_cache import PrefixCache

_REPLACED = ("input_ids", "images")
"""Inputs that `hidden` stands for once it is cached."""

POOLED = "pooled"
"""Input that stands for all that lies below the head."""

HEADS = (r"head/kernel", r"head/bias")


@dataclass(frozen=True)
class Backbone:
    """A model, its pretrained `params`, and default patterns over kernel paths.

    Attributes:
        name: of the model.
        model: called as `model.apply({"params": params}, **inputs)`; its method `prefix` takes the same inputs to
            `hidden`, which the call takes in their place.
        params: the pretrained tree with a fresh head.
        targets: regular expressions for the kernels to adapt, none below `first_layer`.
        heads: regular expressions for what each task has of its own.
        first_layer: the first layer that may be adapted; what lies below is constant, and its attention too where the
            model is cut behind that (`cut_at`).
        blocks: regular expressions over module paths: what rematerialisation computes again, one by one.
    """

    name: str
    model: nn.Module
    params: dict
    targets: tuple[str, ...]
    heads: tuple[str, ...]
    first_layer: int
    blocks: tuple[str, ...] = (r"encoder/layer_\d+",)


def minilm(
    cache_dir: str | os.PathLike[str] | None = None,
    num_classes: int = 2,
    first_layer: int = 0,
    dtype: Dtype = jnp.float32,
) -> Backbone:
    """all-MiniLM-L6-v2 with a linear head; fetched on first use (see `experiments.assets`).

    The default targets are the FFN-down kernels of the layers from `first_layer` on. The head is drawn from a fixed
    key (LeCun normal kernel, zero bias).

    Raises:
        ShareError: the weights cannot be fetched or read, or `first_layer` is out of range.
    """
    config, encoder = load_bert(minilm_folder(cache_dir))
    layers = config.num_hidden_layers
    check_cut(Cut(first_layer), layers)
    return Backbone(
        name="all-MiniLM-L6-v2",
        model=BertClassifier(config, num_classes, first_layer, dtype),
        params={"encoder": encoder, "head": linear_head(num_classes, config.hidden_size)},
        targets=_ffn_down(first_layer, layers),
        heads=HEADS,
        first_layer=first_layer,
    )


def digits_vit(seed: int = 0, num_classes: int = 2, dtype: Dtype = jnp.float32, first_layer: int = 0) -> Backbone:
    """A small vision transformer, pretrained here and now to redraw the digits' training images.

    Pretraining sees the training images of all ten digits without their labels, and no test image; it takes
    seconds.
    Targets and head as for `minilm`.

    Raises:
        InputError: scikit-learn is not installed, or `first_layer` is out of range.
    """
    train, _ = digits_split()
    return image_vit("digits-vit", train.inputs["images"], VitConfig(), seed, num_classes, dtype, first_layer)


MNIST_VIT = VitConfig(image_size=28, patch_size=7)
"""16 patches of MNIST's or Fashion-MNIST's images."""


def image_vit(
    name: str,
    images: np.ndarray,
    config: VitConfig,
    seed: int = 0,
    num_classes: int = 2,
    dtype: Dtype = jnp.float32,
    first_layer: int = 0,
    *,
    steps: int = 300,
) -> Backbone:
    """A vision transformer that is pretrained here and now to redraw training images, without their labels.

    Targets and head as for `minilm`.

    Args:
        name: of the model.
        images: float32 (N, side, side, channels), training images only.
        config: the sizes.
        seed: of the pretraining.
        num_classes: width of the head.
        dtype: compute type.
        first_layer: the first layer that may be adapted.
        steps: of the pretraining.

    Raises:
        InputError: `first_layer` is out of range, or the images are not of the config's size.
    """
    check_cut(Cut(first_layer), config.num_layers)
    return Backbone(
        name=name,
        model=VitClassifier(config, num_classes, first_layer, dtype),
        params={
            "encoder": pretrain_vit(images, config, seed=seed, steps=steps),
            "head": linear_head(num_classes, config.hidden_size),
        },
        targets=_ffn_down(first_layer, config.num_layers),
        heads=HEADS,
        first_layer=first_layer,
    )


def with_outputs(backbone: Backbone, num_classes: int) -> Backbone:
    """The same model with a fresh head of another width."""
    model: Any = backbone.model
    width = model.config.hidden_size
    two_layers = isinstance(model, RobertaClassifier)
    head = fresh_head(jax.random.key(0), num_classes, width) if two_layers else linear_head(num_classes, width)
    return replace(backbone, model=model.clone(num_classes=num_classes), params={**backbone.params, "head": head})


def cut_at(backbone: Backbone, sublayer: Sublayer) -> Backbone:
    """The same model, its `hidden` entering before that sublayer of `first_layer`.

    Raises:
        InputError: there is no such layer.
    """
    model: Any = backbone.model
    check_cut(Cut(backbone.first_layer, sublayer), layers_of(backbone))
    return replace(backbone, model=model.clone(first_sublayer=sublayer))


def layers_of(backbone: Backbone) -> int:
    """How many layers its encoder has."""
    return sum(name.startswith("layer_") for name in backbone.params.get("encoder", backbone.params))


def prefix_cache(
    backbone: Backbone, rows: int = 128, max_bytes: int | None = None, folder: str | os.PathLike[str] | None = None
) -> PrefixCache:
    """Where the layers below `first_layer` are computed once per example and kept, float32.

    Args:
        backbone: the model and its parameters.
        rows: examples per call of the compiled prefix.
        max_bytes: of memory for all that is kept; no bound if None.
        folder: for what does not fit.

    Raises:
        InputError: `rows` or `max_bytes` is out of range.
    """
    prefix = linen_prefix(backbone.model)
    frozen = {"params": {name: tree for name, tree in backbone.params.items() if name != "head"}}
    return PrefixCache(lambda v, x: jnp.asarray(prefix(v, x), jnp.float32), frozen, rows, max_bytes, folder)


def cached_inputs(cache: PrefixCache, split: Split) -> Split:
    """The split with `hidden` in place of its token ids or images.

    Args:
        cache: from `prefix_cache`.
        split: inputs as the model takes them.

    Raises:
        InputError: the split has nothing that `hidden` could replace.
        LimitError: what is kept would pass the cache's bound on memory, and it has no folder.
    """
    if not set(split.inputs) & set(_REPLACED):
        got, expected = sorted(split.inputs), " or ".join(_REPLACED)
        raise InputError(message("inputs to cache", got=got, expected=expected, fix="pass an uncached split"))
    kept = {name: array for name, array in split.inputs.items() if name not in _REPLACED}
    read = {name: array for name, array in split.inputs.items() if name not in LEARNT}
    return replace(split, inputs={**kept, "hidden": cache.of(read)})


@dataclass(frozen=True)
class PooledFeatures:
    """What the head would see of each example: vectors (examples, d) float32 of the frozen model, without adapters.

    They are the same for every method, seed and head, so each split's are computed once and kept.

    Attributes:
        batch_size: examples per call; the last batch is padded.
    """

    batch_size: int = 128
    _kept: dict[Split, np.ndarray] = field(init=False, repr=False, compare=False, default_factory=dict)

    def of(self, backbone: Backbone, split: Split, point: Callable[[], None] = lambda: None) -> np.ndarray:
        """The vectors of a split.

        Args:
            backbone: the model and its parameters; one model alone, whatever its head.
            split: inputs as the model takes them, cached or not.
            point: called after every batch.
        """
        if POOLED in split.inputs:
            return split.inputs[POOLED]
        if split not in self._kept:  # a split is equal to itself alone
            self._kept[split] = self._computed(backbone, split, point)
        return self._kept[split]

    def _computed(self, backbone: Backbone, split: Split, point: Callable[[], None]) -> np.ndarray:
        rows: list[np.ndarray] = []
        for batch in eval_batches(split.inputs, split.labels, batch_size=self.batch_size, classes=0):
            features = _features(backbone.model, backbone.params, batch["inputs"])
            rows.append(np.asarray(features)[batch["weights"] > 0])
            point()
        return np.concatenate(rows)


@partial(jax.jit, static_argnames="model")
def _features(model: nn.Module, params: dict, inputs: dict[str, Any]) -> jax.Array:
    return jnp.asarray(model.apply({"params": params}, **inputs, method="features"), jnp.float32)


def _ffn_down(first: int, layers: int) -> tuple[str, ...]:
    return tuple(rf"encoder/layer_{index}/ffn_down/kernel" for index in range(first, layers))


def linear_head(num_classes: int, width: int) -> dict:
    return dict(nn.Dense(num_classes).init(jax.random.key(0), jnp.zeros((1, width)))["params"])
