"""rotated_mnist10: MNIST's digits turned by ten angles, domain-incremental, on the model of split_mnist5.

    python -m experiments.run --experiment rotated_mnist10

Accuracy of the default preset after the last task, in percent, and seconds of a run on a CPU, from
`experiments/RESULTS.md`: `shared_a` 67.24 ± 0.26 in 12.7,
`share` 66.01 ± 0.70 in 15.6, `separate_lora` 69.12 ± 0.44 in 13.5.
"""

from experiments.config.experiment import Experiment
from experiments.config.image_stream import RATES, SMALL
from experiments.config.run_config import Config
from experiments.config.split_mnist5 import mnist_backbone
from experiments.config.text_stream import limits
from experiments.streams.base import Stream
from experiments.streams.mnist import rotated_mnist10


def stream(config: Config) -> Stream:
    """The ten angles."""
    return rotated_mnist10(config.cache_dir, **limits(config))


EXPERIMENT = Experiment(
    "rotated_mnist10",
    {
        "quick": SMALL,
        "default": {**RATES, "steps": 150, "train_per_task": 1000, "test_per_task": 300},
        "full": {**RATES, "steps": 400},
    },
    stream,
    mnist_backbone,
    protocol="domain",
    pretrained_here=True,
)
