"""queries10: the same generated questions over tables in ten query languages, on a decoder, SmolLM2-135M.

    python -m experiments.run --experiment queries10

A prompt has the tables' columns, the question and the language; what is scored is the whole query, exactly as it is
written, and its end. The questions are generated (`experiments/streams/queries10`); their syntax is that of the
languages.
"""

from flax.typing import Dtype

from experiments.assets import SMOLLM2, smollm2_file
from experiments.backbones.backbone import Backbone
from experiments.backbones.decoder import decoder
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.streams.base import Stream
from experiments.streams.protocols import TASK
from experiments.streams.queries10.stream import TEST_PER_TASK, TRAIN_PER_TASK, UNSEEN_PER_TASK, queries10
from experiments.streams.token_stream import Shots, token_tasks
from share_jax.models.pretrained_decoder import load_tokenizer_of

QUERIES = {
    "rank": 8,
    "alpha": 16.0,
    "num_basis": 40,
    "learning_rate": 3e-3,
    "first_layer": 24,
    "steps": 60,
    "batch_size": 16,
    "eval_batch_size": 16,
    "max_length": 192,
    "length_buckets": (48, 64, 80, 96),
}


def stream(config: Config) -> Stream:
    """The ten languages as SmolLM2's tokens, task-incremental."""
    few = (config.test_per_task or TEST_PER_TASK) // 7
    tasks = queries10(
        seed=config.order_seed,
        train_per_task=config.train_per_task or TRAIN_PER_TASK,
        test_per_task=config.test_per_task or TEST_PER_TASK,
        unseen_per_task=min(UNSEEN_PER_TASK, config.test_per_task or UNSEEN_PER_TASK),
    )
    shots = Shots(tested=max(1, few)) if "frozen_few_shot" in config.methods else None
    made = token_tasks(tasks, load_tokenizer_of(smollm2_file(config.cache_dir)), config.max_length, shots)
    return Stream("queries10", TASK, made)


def backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """SmolLM2, whatever the questions."""
    return decoder(smollm2_file(config.cache_dir), config.first_layer, dtype)


EXPERIMENT = Experiment(
    "queries10",
    {
        "quick": {**QUERIES, "first_layer": 28, "steps": 10, "train_per_task": 96, "test_per_task": 16},
        "default": QUERIES,
        "full": {**QUERIES, "first_layer": 20, "steps": 120},
    },
    stream,
    backbone,
    methods=("shared_a", "sequential_lora", "frozen", "frozen_few_shot"),
    assets=(SMOLLM2,),
)
