"""code10: real code in ten programming languages, on a decoder, SmolLM2-135M.

    python -m experiments.run --experiment code10

Scored in bits per byte of files that are held out. `results.json` and the report tell how much of each language's gain
is kept: the gain is the frozen model's bits per byte minus those after learning, and what is kept of it is measured
after the last language. `accuracy` in `results.json` is 1 - (bits per byte) / 8. The code is that of packages that the
registries of Python and npm carry (`experiments/streams/code_packages.py`). `--weights` takes another decoder.
"""

from experiments.assets import SMOLLM2
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.token_parts import RATES, SMOKE, token_backbone, token_stream
from experiments.report.notify import to_stderr
from experiments.streams.base import Stream
from experiments.streams.code10 import TEST_PER_TASK, TRAIN_PER_TASK, code10

CODE = {
    **RATES,
    "rank": 32,
    "alpha": 64.0,
    "steps": 48,
    "batch_size": 4,
    "learning_rate": 4e-3,
    "train_per_task": TRAIN_PER_TASK,
    "test_per_task": TEST_PER_TASK,
    "max_length": 256,
    "length_buckets": (192, 224),
}
"""Every token counts, and the output layer takes most of a step: four blocks are what it holds at once. An A that was
learnt on one language is worth less to the others than one of their own; the wider it is, the less that counts: on
held-out blocks of C and Solidity, learnt after Python, rank 16 had 0.89 of separate LoRAs' gain and 32 has 0.92."""


def stream(config: Config) -> Stream:
    """The ten languages as tokens."""
    tasks = code10(
        config.cache_dir,
        seed=config.order_seed,
        train_per_task=config.train_per_task,
        test_per_task=config.test_per_task,
        notify=None if config.quiet else to_stderr,
    )
    return token_stream(config, tasks)


EXPERIMENT = Experiment(
    "code10",
    {
        "quick": {**CODE, **SMOKE, "max_length": 128, "length_buckets": ()},
        "default": CODE,
        "full": {**CODE, "first_layer": 20, "steps": 300, "train_per_task": None, "test_per_task": None},
    },
    stream,
    token_backbone,
    methods=("shared_a", "separate_lora", "sequential_lora", "frozen"),
    assets=(SMOLLM2,),
    reads=("weights",),
)
