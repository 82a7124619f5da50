"""images: a user's own images, a folder per task and class.

    python -m experiments.run --experiment images --data-folder FOLDER
    python -m experiments.run --experiment images --data-folder FOLDER --weights WEIGHTS --bf16

`experiments.streams.image_folder` says how the folder looks. Without weights the model is a small vision transformer
that is pretrained for the run, on the training images of all tasks without their labels, at 32 pixels a side; with
those of a vision transformer such as ViT-B/16 images have 224 pixels, unless `--image-size` has another number.
Result and wall time: they are those of the data. The rates are those of split MNIST.
"""

from dataclasses import replace

import numpy as np
from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.config.experiment import Experiment
from experiments.config.image_stream import RATES, SMALL, pretrained_vit
from experiments.config.large_images import vit_backbone
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.streams.base import Stream
from experiments.streams.image_folder import image_folder
from share_jax.models.vit import VitConfig
from share_jax.models.vit_weights import HUB_NAME
from share_jax.models.weights import local_folder

SIZE = 32
"""Pixels a side without weights."""

PATCHES = 4
"""Of the small model along a side."""


def sized(config: Config) -> Config:
    """The configuration with the image size that holds."""
    whole = config.weights is not None and config.image_size == SIZE
    return replace(config, image_size=Config.image_size) if whole else config


def stream(config: Config) -> Stream:
    """The tasks of the folder; that there are weights, where they are named, is looked at first."""
    if config.weights is not None:
        local_folder(config.weights, HUB_NAME, "config.json and model.safetensors")
    size, small = sized(config).image_size, config.weights is None
    return image_folder(config.experiment, config.data_folder, size=size, in_memory=small, **limits(config))


def backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """The model of `--weights`, or a small one that has seen the training images of all tasks."""
    if config.weights is not None:
        return vit_backbone(sized(config), stream, classes, dtype)
    images = np.concatenate([task.train.inputs["images"] for task in stream.tasks])
    sizes = VitConfig(image_size=config.image_size, patch_size=max(1, config.image_size // PATCHES))
    return pretrained_vit("images-vit", images, config, classes, dtype, sizes)


EXPERIMENT = Experiment(
    "images",
    {
        "quick": {**SMALL, "image_size": SIZE},
        "default": {**RATES, "steps": 150, "image_size": SIZE},
        "full": {**RATES, "steps": 600, "image_size": SIZE},
    },
    stream,
    backbone,
    pretrained_here=True,
    reads=("weights",),
)
