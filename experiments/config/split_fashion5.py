"""split_fashion5: Fashion-MNIST in five tasks of two, on a vision transformer that is pretrained for the run.

    python -m experiments.run --experiment split_fashion5

Result and wall time: none is published; nothing was chosen on it. Without `--data-folder` the four files are those of
Debian's package dataset-fashion-mnist; a folder with them, or with TensorFlow Datasets' own, is taken instead.
"""

from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.config.experiment import Experiment
from experiments.config.image_stream import RATES, SMALL, pretrained_vit
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.streams.base import Stream
from experiments.streams.fashion import fashion_split, split_fashion5


def stream(config: Config) -> Stream:
    """The five pairs of clothes."""
    return split_fashion5(config.data_folder, config.cache_dir, **limits(config))


def backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """A vision transformer that has seen the training images of all clothes."""
    train, _ = fashion_split(config.data_folder, config.cache_dir)
    return pretrained_vit("fashion-vit", train.inputs["images"], config, classes, dtype)


EXPERIMENT = Experiment(
    "split_fashion5",
    {
        "quick": SMALL,
        "default": {**RATES, "steps": 150, "train_per_task": 2000, "test_per_task": 500},
        "full": {**RATES, "steps": 600},
    },
    stream,
    backbone,
    pretrained_here=True,
)
