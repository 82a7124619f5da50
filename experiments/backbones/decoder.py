"""A decoder of text as a backbone: its frozen lower layers, and every kernel of those above adapted."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.data.batch_order import token_counts
from experiments.streams.base import Split
from share_jax.models.pretrained_decoder import Pretrained, load_decoder
from share_jax.models.split_point import Cut, check_cut
from share_jax.models.text_stems import prefix_of_texts


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


def hidden_of(backbone: Backbone, splits: Sequence[Split]) -> list[Split]:
    """Splits with `hidden` in place of their token ids: what the frozen layers make of each text.

    What texts of any of the splits begin with alike is computed once: a question that is put to ten tasks, or the
    examples in front of every question.

    Args:
        backbone: cut where `hidden` enters.
        splits: of token ids, padded on the right.
    """
    texts = [
        tuple(ids[:length].tolist())
        for split in splits
        for ids, length in zip(split.inputs["input_ids"], token_counts(split.inputs["attention_mask"]), strict=True)
    ]
    model: Any = backbone.model
    found = iter(prefix_of_texts(model, backbone.params, texts))
    return [replace(split, inputs=_with_hidden(split.inputs, found)) for split in splits]


def _with_hidden(inputs: Mapping[str, np.ndarray], found: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    mask, rows = inputs["attention_mask"], list(islice(found, len(inputs["attention_mask"])))
    hidden = np.zeros((*mask.shape, rows[0].shape[1]), np.float32)
    for number, row in enumerate(rows):
        hidden[number, : len(row)] = row
    return {**{name: array for name, array in inputs.items() if name != "input_ids"}, "hidden": hidden}
