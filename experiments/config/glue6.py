"""glue6: six tasks of GLUE on RoBERTa of one's own weights; one of them asks for a number.

    python -m experiments.run --experiment glue6 --data-folder FOLDER --weights WEIGHTS --bf16 --seeds 0,1,2

Result and wall time: not run where this was written; published figures stand in `experiments/streams/tfds.md`. Rank
and columns of each basis are those of the language table of the method's paper (p = r = 8, k = 32); the rates are
starting points.
"""

from flax.typing import Dtype

from experiments.backbones.backbone import Backbone
from experiments.backbones.pretrained import roberta
from experiments.config.experiment import Experiment
from experiments.config.large_images import SMOKE
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.streams.base import Stream, tokenize
from experiments.streams.glue import glue6
from experiments.streams.protocols import TASK
from share_jax.models.roberta import HUB_NAME
from share_jax.models.tokenizer import load_tokenizer
from share_jax.models.weights import local_folder

RATES = {
    "rank": 8,
    "alpha": 16.0,
    "num_basis": 32,
    "phi": 8,
    "learning_rate": 5e-4,
    "head_learning_rate": 5e-4,
    "max_length": 128,
    "length_buckets": (32, 48, 64, 96),
}


def stream(config: Config) -> Stream:
    """The six tasks as tokens; that there are weights is looked at first."""
    folder = local_folder(config.weights, HUB_NAME, "config.json, model.safetensors and tokenizer.json")
    encode = load_tokenizer(folder, config.max_length)
    return Stream(
        config.experiment, TASK, tokenize(glue6(config.data_folder, **limits(config)), encode, config.max_length)
    )


def backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """RoBERTa of `--weights`."""
    return roberta(config.weights, classes, config.first_layer, dtype)


EXPERIMENT = Experiment(
    "glue6",
    {
        "quick": {**RATES, **SMOKE, "max_length": 48, "length_buckets": ()},
        "default": {**RATES, "steps": 3000},
        "full": {**RATES, "steps": 12000},
    },
    stream,
    backbone,
    reads=("weights",),
)
