"""A decoder of text as a backbone: its frozen lower layers, and every kernel of those above adapted."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.data.batch_order import bucketed
from experiments.streams.base import Split
from share_jax.linen.prefix import linen_prefix
from share_jax.models.pretrained_decoder import Pretrained, load_decoder
from share_jax.models.split_point import Cut, check_cut
from share_jax.train.batches import padded

READ = ("input_ids", "attention_mask")
"""What a prefix reads; the other inputs say which tokens are scored."""


def decoder(weights: str | os.PathLike[str], first_layer: int, dtype: Dtype = jnp.float32) -> Backbone:
    """A decoder from a folder or a GGUF file; the targets are all kernels of the layers from `first_layer` on.

    Raises:
        ShareError: the weights cannot be read, or `first_layer` is out of range.
    """
    return decoder_backbone(load_decoder(weights, dtype=dtype, first_layer=first_layer), Path(weights).stem)


def decoder_backbone(loaded: Pretrained, name: str) -> Backbone:
    """The backbone of a loaded decoder."""
    model, layers = loaded.model, loaded.model.config.num_hidden_layers
    check_cut(Cut(model.first_layer), layers)
    return Backbone(
        name=name,
        model=model,
        params=loaded.params,
        targets=tuple(rf"layer_{layer}/.*/kernel" for layer in range(model.first_layer, layers)),
        heads=(),
        first_layer=model.first_layer,
        blocks=(r"layer_\d+",),
    )


def hidden_of(backbone: Backbone, split: Split, lengths: tuple[int, ...], rows: int) -> Split:
    """The split with `hidden` in place of its token ids: what the frozen layers make of each text.

    Texts of like length are computed together, so that little of it is padding.

    Args:
        backbone: cut where `hidden` enters.
        split: token ids.
        lengths: of texts, each compiled once.
        rows: texts in a call.
    """
    return Split(_with_hidden(backbone, split.inputs, lengths, rows), split.labels)


def _with_hidden(
    backbone: Backbone, inputs: Mapping[str, np.ndarray], lengths: tuple[int, ...], rows: int
) -> dict[str, np.ndarray]:
    mask = inputs["attention_mask"]
    buckets = bucketed({name: inputs[name] for name in READ}, lengths or (mask.shape[1],))
    width = backbone.model.config.hidden_size
    hidden = np.zeros((*mask.shape, width), np.float32)
    every = np.arange(len(mask))
    places = np.zeros(len(mask), int) if buckets is None else buckets.of(every)
    for place in np.unique(places):
        chosen = every[places == place]
        length = mask.shape[1] if buckets is None else buckets.lengths[place]
        for batch in np.split(chosen, range(rows, len(chosen), rows)):
            index, weights = padded(batch, rows)
            cut = {name: inputs[name][index, :length] for name in READ}
            found = _prefix(backbone.model, {"params": backbone.params}, cut)
            hidden[batch, :length] = np.asarray(found, np.float32)[weights > 0]
    return {**{name: array for name, array in inputs.items() if name != "input_ids"}, "hidden": hidden}


@partial(jax.jit, static_argnames="model")
def _prefix(model: object, variables: dict, inputs: dict[str, np.ndarray]) -> jax.Array:
    return linen_prefix(model)(variables, inputs)  # pyright: ignore[reportArgumentType]
