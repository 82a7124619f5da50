"""digits5: scikit-learn's digits in five tasks of two, on a small vision transformer that is pretrained for the run.

    python -m experiments.run --experiment digits5

Accuracy of the default preset after the last task, in percent, and seconds of a run on a CPU, from
`experiments/RESULTS.md`: `shared_a` 96.84 ± 0.32 in 9.4,
`share` 97.96 ± 0.19 in 9.9, `separate_lora` 98.21 ± 0.22 in 4.4.
"""

from flax.typing import Dtype

from experiments.backbones.backbone import Backbone, digits_vit
from experiments.config.experiment import Experiment
from experiments.config.image_stream import RATES
from experiments.config.run_config import Config
from experiments.streams.base import Stream
from experiments.streams.digits import digits5


def stream(config: Config) -> Stream:
    """The five pairs of digits, all of them whatever the limits."""
    return digits5(config.order_seed)


def backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """The vision transformer of the digits."""
    return digits_vit(config.order_seed, classes, dtype, config.first_layer)


EXPERIMENT = Experiment(
    "digits5",
    {"quick": {"steps": 40}, "default": {"steps": 100, **RATES}, "full": {"steps": 400, **RATES}},
    stream,
    backbone,
    pretrained_here=True,
)
