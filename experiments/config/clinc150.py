"""clinc150: ten domains of 15 intents each, on MiniLM.

    python -m experiments.run --experiment clinc150 --data-folder FOLDER

Accuracy of the default preset after the last task, in percent, and seconds of a run on a CPU, from
`experiments/RESULTS.md`: `shared_a` 96.53 ± 0.16 in 57.3,
`share` 96.54 ± 0.05 in 102, `separate_lora` 96.69 ± 0.06 in 71.0.

FOLDER has `data_full.json`; without it TensorFlow Datasets' `clinc_oos` is read.
"""

from experiments.assets import MINILM
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import RATES, limits, text_backbone, text_stream
from experiments.streams.base import Stream
from experiments.streams.clinc import clinc150

QUERIES = {
    **RATES,
    "first_layer": 4,
    "first_sublayer": "ffn",
    "steps": 100,
    "max_length": 24,
    "length_buckets": (8, 12, 16, 24),
    "eval_batch_size": 150,
}


def stream(config: Config) -> Stream:
    """The ten domains as tokens."""
    return text_stream(config, clinc150(config.data_folder, **limits(config)))


EXPERIMENT = Experiment(
    "clinc150",
    {
        "quick": {**QUERIES, "steps": 10, "train_per_task": 150, "test_per_task": 60},
        "default": QUERIES,
        "full": {**QUERIES, "steps": 300, "max_length": 40},
    },
    stream,
    text_backbone,
    assets=(MINILM,),
)
