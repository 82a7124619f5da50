"""A frozen pretrained model with what the methods need to know of it, and the cache of its unadapted layers."""

import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from experiments.assets import minilm_folder
from experiments.models.bert import BertClassifier, load_bert
from experiments.models.vit import VitClassifier, VitConfig, pretrain_vit
from experiments.streams.base import Split
from experiments.streams.digits import digits_split
from share_jax.errors import InputError, line
from share_jax.train.prefix import PrefixCache, linen_prefix

_REPLACED = ("input_ids", "images")
"""Inputs that `hidden` stands for once it is cached."""

_HEADS = (r"head/kernel", r"head/bias")


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
        first_layer: the first layer that may be adapted; what lies below is constant.
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
    _check_first_layer(first_layer, layers)
    return Backbone(
        name="all-MiniLM-L6-v2",
        model=BertClassifier(config, num_classes, first_layer, dtype),
        params={"encoder": encoder, "head": _head(num_classes, config.hidden_size)},
        targets=_ffn_down(first_layer, layers),
        heads=_HEADS,
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
    config = VitConfig()
    _check_first_layer(first_layer, config.num_layers)
    train, _ = digits_split()
    return Backbone(
        name="digits-vit",
        model=VitClassifier(config, num_classes, first_layer, dtype),
        params={
            "encoder": pretrain_vit(train.inputs["images"], config, seed=seed),
            "head": _head(num_classes, config.hidden_size),
        },
        targets=_ffn_down(first_layer, config.num_layers),
        heads=_HEADS,
        first_layer=first_layer,
    )


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
        raise InputError(line("inputs to cache", got=got, expected=expected, mend="pass an uncached split"))
    kept = {name: array for name, array in split.inputs.items() if name not in _REPLACED}
    return Split({**kept, "hidden": cache.of(dict(split.inputs))}, split.labels)


def _ffn_down(first: int, layers: int) -> tuple[str, ...]:
    return tuple(rf"encoder/layer_{index}/ffn_down/kernel" for index in range(first, layers))


def _head(num_classes: int, width: int) -> dict:
    return dict(nn.Dense(num_classes).init(jax.random.key(0), jnp.zeros((1, width)))["params"])


def _check_first_layer(first: int, layers: int) -> None:
    if not 0 <= first <= layers:
        raise InputError(line("first_layer", got=first, expected=f"0 to {layers}", mend="pass first_layer=0"))
