"""The two large backbones, from weights that the user has: a vision transformer and RoBERTa."""

import os

import jax
import jax.numpy as jnp
from flax.typing import Dtype

from experiments.backbones.backbone import HEADS, Backbone, linear_head
from share_jax.models.roberta import RobertaClassifier, fresh_head, load_roberta
from share_jax.models.split_point import Cut, check_cut
from share_jax.models.vit import VitClassifier
from share_jax.models.vit_weights import load_vit

ROBERTA_HEADS = (r"head/dense/kernel", r"head/dense/bias", r"head/out/kernel", r"head/out/bias")


def vit(
    weights: str | os.PathLike[str] | None,
    num_classes: int = 2,
    first_layer: int = 0,
    dtype: Dtype = jnp.float32,
    image_size: int | None = None,
) -> Backbone:
    """A vision transformer such as ViT-B/16, with a linear head; see `load_vit` for what `weights` may be.

    The default targets are the query and value kernels of the layers from `first_layer` on, as in the LoRA paper (Hu et
    al. 2021) and in PEFT's defaults for ViT; which kernels the paper of the method adapts is not known.

    Raises:
        ShareError: the weights cannot be read, or `first_layer` is out of range.
    """
    config, encoder = load_vit(weights, image_size)
    check_cut(Cut(first_layer), config.num_layers)
    return Backbone(
        name=f"vit-{config.num_layers}x{config.hidden_size}/{config.patch_size}",
        model=VitClassifier(config, num_classes, first_layer, dtype),
        params={"encoder": encoder, "head": linear_head(num_classes, config.hidden_size)},
        targets=_query_value(first_layer, config.num_layers),
        heads=HEADS,
        first_layer=first_layer,
    )


def roberta(
    weights: str | os.PathLike[str] | None,
    num_classes: int = 2,
    first_layer: int = 0,
    dtype: Dtype = jnp.float32,
) -> Backbone:
    """RoBERTa such as roberta-base, with RoBERTa's own head of two layers; see `load_roberta`.

    Targets as for `vit`, which are also those of LoRA's own GLUE table. The whole head is each task's own.

    Raises:
        ShareError: the weights cannot be read, or `first_layer` is out of range.
    """
    config, encoder = load_roberta(weights)
    check_cut(Cut(first_layer), config.num_hidden_layers)
    return Backbone(
        name=f"roberta-{config.num_hidden_layers}x{config.hidden_size}",
        model=RobertaClassifier(config, num_classes, first_layer, dtype),
        params={"encoder": encoder, "head": fresh_head(jax.random.key(0), num_classes, config.hidden_size)},
        targets=_query_value(first_layer, config.num_hidden_layers),
        heads=ROBERTA_HEADS,
        first_layer=first_layer,
    )


def _query_value(first: int, layers: int) -> tuple[str, ...]:
    return tuple(
        rf"encoder/layer_{index}/attention/{part}/kernel"
        for index in range(first, layers)
        for part in ("query", "value")
    )
