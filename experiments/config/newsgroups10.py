"""newsgroups10: 20 Newsgroups in ten tasks of two groups, on MiniLM.

    python -m experiments.run --experiment newsgroups10

Accuracy of the default preset after the last task, in percent, and seconds of a run on a CPU, from
`experiments/RESULTS.md`: `shared_a` 96.98 ± 0.12 in 71.5,
`share` 97.28 ± 0.19 in 93.7, `separate_lora` 97.15 ± 0.09 in 98.6.
"""

from experiments.assets import MINILM, NEWSGROUPS
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import ARTICLES, limits, text_backbone, text_stream
from experiments.streams.base import Stream
from experiments.streams.newsgroups import newsgroups10


def stream(config: Config) -> Stream:
    """The ten pairs of groups as tokens."""
    return text_stream(config, newsgroups10(config.cache_dir, **limits(config)))


EXPERIMENT = Experiment(
    "newsgroups10",
    {
        "quick": {**ARTICLES, "steps": 6, "train_per_task": 64, "test_per_task": 32, "max_length": 32},
        "default": {**ARTICLES, "test_per_task": 200},
        "full": {**ARTICLES, "steps": 300, "max_length": 128, "length_buckets": (32, 64, 96)},
    },
    stream,
    text_backbone,
    assets=(MINILM, NEWSGROUPS),
    minutes={"default": 8},  # the seconds of the usual methods in experiments/RESULTS.md
)
