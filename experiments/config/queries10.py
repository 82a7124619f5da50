"""queries10: the same generated questions over tables in ten query languages, on a decoder, SmolLM2-135M.

    python -m experiments.run --experiment queries10

A prompt has the question and the language; what is scored is the whole query, exactly as it is
written, and its end. The questions are generated (`experiments/streams/queries10`); their syntax is that of the
languages.
"""

from experiments.assets import SMOLLM2
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.token_parts import RATES, SHOWN_MOST, token_backbone, token_stream
from experiments.streams.base import Stream
from experiments.streams.queries10.stream import TEST_PER_TASK, TRAIN_PER_TASK, UNSEEN_PER_TASK, queries10

QUERIES = {
    **RATES,
    "first_layer": 20,
    "steps": 200,
    "batch_size": 4,
    "learning_rate": 7e-3,
    "start_from": "last",
    "num_basis": 20,
    "phi": 8,
    "train_per_task": TRAIN_PER_TASK,
    "test_per_task": TEST_PER_TASK,
    "max_length": 192,
    "length_buckets": (48, 64, 80, 96),
}
"""Many small updates learn exact syntax. A language starts from the last one's adapter, for the questions are alike; so
20 columns of `share` hold ten languages."""

SHORT = {
    **QUERIES,
    "steps": 180,
    "batch_size": 2,
    "eval_batch_size": 8,
    "adam_b2": 0.9,
    "train_per_task": 360,
    "test_per_task": 40,
}
"""The main job's quarter of an hour: each question once, and fewer of the test. An update of two questions costs two
thirds of one of four, and at so few of them a shorter memory of squared gradients learns more; both were chosen on
held-out questions of the first four languages."""


def stream(config: Config) -> Stream:
    """The ten languages as the decoder's tokens, task-incremental."""
    asked = config.test_per_task
    tasks = queries10(
        seed=config.order_seed,
        train_per_task=config.train_per_task,
        test_per_task=asked,
        unseen_per_task=None if asked is None else min(UNSEEN_PER_TASK, asked),
    )
    return token_stream(config, tasks, SHOWN_MOST if asked is None else max(1, asked // 7))


EXPERIMENT = Experiment(
    "queries10",
    {
        "quick": {**QUERIES, "first_layer": 28, "steps": 10, "train_per_task": 96, "test_per_task": 16},
        "short": SHORT,
        "default": QUERIES,
        "full": {**QUERIES, "first_layer": 0, "steps": 360, "train_per_task": None, "test_per_task": None},
    },
    stream,
    token_backbone,
    methods=("shared_a", "sequential_lora", "frozen", "frozen_few_shot"),
    assets=(SMOLLM2,),
    reads=("weights",),
    minutes={"short": 13},
)
