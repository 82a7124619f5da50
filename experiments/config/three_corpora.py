"""three_corpora: 20 Newsgroups, Reuters R8 and BBC news as three unlike tasks, on MiniLM.

    python -m experiments.run --experiment three_corpora

Result and wall time: none is published. The rates are those of 20 Newsgroups: nothing was chosen on this stream.
"""

from experiments.assets import MINILM, NEWSGROUPS
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import ARTICLES, limits, text_backbone, text_stream
from experiments.streams.base import Stream
from experiments.streams.corpora import BBC, three_corpora


def stream(config: Config) -> Stream:
    """The three corpora as tokens."""
    return text_stream(config, three_corpora(config.cache_dir, **limits(config)))


EXPERIMENT = Experiment(
    "three_corpora",
    {
        "quick": {**ARTICLES, "steps": 6, "train_per_task": 80, "test_per_task": 40, "max_length": 32},
        "default": {**ARTICLES, "steps": 200, "train_per_task": 4000, "test_per_task": 500},
        "full": {**ARTICLES, "steps": 600, "max_length": 128, "length_buckets": (32, 64, 96)},
    },
    stream,
    text_backbone,
    assets=(MINILM, NEWSGROUPS, BBC),
)
