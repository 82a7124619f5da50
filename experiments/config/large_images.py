"""What the experiments with large images share: a vision transformer such as ViT-B/16 on data sets of TFDS.

The weights and the prepared sets are the user's; `experiments/streams/tfds.md` has the commands that prepare them, the
hardware that is meant, and the published figures to compare with. None was run where this was written, so the presets'
rates are starting points.
"""

from collections.abc import Mapping
from typing import Any

from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.backbones.pretrained import vit
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.streams.base import Stream
from experiments.streams.tfds_images import image_stream
from share_jax.models.vit_weights import HUB_NAME
from share_jax.models.weights import local_folder

RATES: Mapping[str, Any] = {
    "rank": 8,
    "alpha": 16.0,
    "num_basis": 64,
    "phi": 8,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
}

SMOKE: Mapping[str, Any] = {
    "steps": 10,
    "batch_size": 8,
    "eval_batch_size": 32,
    "train_per_task": 64,
    "test_per_task": 32,
}
"""What the quick preset of streams with weights and data of the user's sets."""


def large_images(name: str, steps: int = 400) -> Experiment:
    """The experiment of a stream of `experiments.streams.tfds_images`; full trains four times as long."""
    return Experiment(
        name,
        {
            "quick": {**RATES, **SMOKE},
            "default": {**RATES, "steps": steps},
            "full": {**RATES, "steps": 4 * steps},
        },
        _stream,
        vit_backbone,
        reads=("weights",),
    )


def _stream(config: Config) -> Stream:
    local_folder(config.weights, HUB_NAME, "config.json and model.safetensors")
    return image_stream(config.experiment, config.data_folder, size=config.image_size, **limits(config))


def vit_backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """The vision transformer of `--weights`."""
    return vit(config.weights, classes, config.first_layer, dtype, config.image_size)
