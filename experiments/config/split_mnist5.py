"""split_mnist5: 5,000 MNIST digits in five tasks of two, on a vision transformer that is pretrained for the run.

    python -m experiments.run --experiment split_mnist5

Accuracy of the default preset after the last task, in percent, and seconds of a run on a CPU, from
`experiments/RESULTS.md`: `shared_a` 97.07 ± 0.06 in 7.3,
`share` 98.20 ± 0.10 in 9.1, `separate_lora` 98.50 ± 0.26 in 7.0.
"""

from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.config.experiment import Experiment
from experiments.config.image_stream import RATES, SMALL, pretrained_vit
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.streams.base import Stream
from experiments.streams.mnist import mnist_split, split_mnist5


def stream(config: Config) -> Stream:
    """The five pairs of digits."""
    return split_mnist5(config.cache_dir, **limits(config))


def mnist_backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """A vision transformer that has seen the training images of all digits."""
    train, _ = mnist_split(config.cache_dir)
    return pretrained_vit("mnist-vit", train.inputs["images"], config, classes, dtype)


EXPERIMENT = Experiment(
    "split_mnist5",
    {"quick": SMALL, "default": {**RATES, "steps": 150}, "full": {**RATES, "steps": 400}},
    stream,
    mnist_backbone,
    pretrained_here=True,
)
