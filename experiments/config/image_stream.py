"""What experiments with small images share: presets, and a vision transformer that is pretrained for the run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.typing import Dtype

from experiments.backbones.backbone import MNIST_VIT, Backbone, image_vit
from experiments.config.run_config import Config
from share_jax.models.vit import VitConfig

RATES: Mapping[str, Any] = {"learning_rate": 5e-3, "head_learning_rate": 1e-2, "num_basis": 12, "phi": 4}

SMALL: Mapping[str, Any] = {**RATES, "steps": 20, "train_per_task": 200, "test_per_task": 60}
"""A smoke test."""

PRETRAINING_STEPS = 600
"""Fewer in the quick preset."""


def pretrained_vit(
    name: str, images: np.ndarray, config: Config, classes: int, dtype: Dtype, sizes: VitConfig = MNIST_VIT
) -> Backbone:
    """A vision transformer that learns to redraw the training images first, without their labels.

    Args:
        name: of the model.
        images: float32 (N, side, side, channels), training images of all tasks.
        config: the run's configuration.
        classes: width of the head.
        dtype: compute type.
        sizes: of the model.
    """
    steps = 60 if config.preset == "quick" else PRETRAINING_STEPS
    return image_vit(name, images, sizes, config.order_seed, classes, dtype, config.first_layer, steps=steps)
