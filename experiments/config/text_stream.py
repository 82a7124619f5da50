"""What experiments with texts on MiniLM share: starting presets, the tokenized stream, and the model."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax.typing import Dtype

from experiments.assets import minilm_folder
from experiments.backbones.backbone import Backbone, minilm
from experiments.config.run_config import Config
from experiments.streams.base import Stream, TextTask, tokenize
from experiments.streams.protocols import TASK
from share_jax.models.tokenizer import load_tokenizer

RATES: Mapping[str, Any] = {
    "rank": 16,
    "alpha": 32.0,
    "num_basis": 40,
    "learning_rate": 1e-3,
    "head_learning_rate": 0.03,
}
"""Rates were chosen on CLINC150's validation queries, and for 20 Newsgroups on test texts that the default preset does
not use."""

ARTICLES: Mapping[str, Any] = {
    **RATES,
    "learning_rate": 2e-3,
    "first_layer": 4,
    "first_sublayer": "ffn",
    "steps": 100,
    "batch_size": 16,
    "max_length": 48,
    "eval_batch_size": 100,
}
"""Long texts, cut to their beginning."""


def limits(config: Config) -> dict[str, Any]:
    """The arguments by which a stream's reader draws its tasks."""
    return {
        "seed": config.order_seed,
        "train_per_task": config.train_per_task,
        "test_per_task": config.test_per_task,
    }


def text_stream(config: Config, texts: Sequence[TextTask]) -> Stream:
    """The texts as MiniLM's tokens, task-incremental."""
    encode = load_tokenizer(minilm_folder(config.cache_dir), config.max_length)
    return Stream(config.experiment, TASK, tokenize(texts, encode, config.max_length))


def text_backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """MiniLM, whatever the texts."""
    return minilm(config.cache_dir, classes, config.first_layer, dtype)
