"""The experiments that need weights and data sets of the user's: their presets, streams and backbones.

Images on a vision transformer (`experiments.streams.images`) and GLUE on RoBERTa (`experiments.streams.glue`). What the
commands are, which hardware they want and which published figures stand beside them is in
`experiments/streams/tfds.md`; nothing of it was run where this was written, so the presets' rates are starting points.
"""

from typing import Any

from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.backbones.pretrained import roberta, vit
from experiments.config.large_presets import IMAGES
from experiments.config.run_config import Config
from experiments.streams.base import Stream, tokenize
from experiments.streams.glue import glue6
from experiments.streams.images import image_stream
from share_jax.models.roberta import HUB_NAME as ROBERTA
from share_jax.models.tokenizer import load_tokenizer
from share_jax.models.vit_weights import HUB_NAME as VIT
from share_jax.models.weights import local_folder


def large_stream(config: Config) -> Stream:
    """The stream of an experiment of `large_presets.LARGE`; that there are weights is looked at first.

    Raises:
        ShareError: weights or data are not there.
    """
    limits: dict[str, Any] = {
        "seed": config.order_seed,
        "train_per_task": config.train_per_task,
        "test_per_task": config.test_per_task,
    }
    if config.experiment in IMAGES:
        local_folder(config.weights, VIT, "config.json and model.safetensors")
        return image_stream(config.experiment, config.data_folder, size=config.image_size, **limits)
    folder = local_folder(config.weights, ROBERTA, "config.json, model.safetensors and tokenizer.json")
    encode = load_tokenizer(folder, config.max_length)
    tasks = tokenize(glue6(config.data_folder, **limits), encode, config.max_length)
    return Stream(config.experiment, "task-incremental", tasks)


def large_backbone(config: Config, classes: int, dtype: Dtype) -> Backbone:
    """The model of an experiment of `large_presets.LARGE`.

    Raises:
        ShareError: the weights cannot be read.
    """
    if config.experiment in IMAGES:
        return vit(config.weights, classes, config.first_layer, dtype, config.image_size)
    return roberta(config.weights, classes, config.first_layer, dtype)
