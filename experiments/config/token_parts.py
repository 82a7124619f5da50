"""What experiments with a decoder share: starting presets, the tokens of its tasks, and the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax.typing import Dtype

from experiments.assets import smollm2_file
from experiments.backbones.backbone import Backbone
from experiments.backbones.decoder import decoder
from experiments.config.run_config import Config
from experiments.streams.base import Stream
from experiments.streams.protocols import TASK
from experiments.streams.text_tasks import CompletionTask
from experiments.streams.token_stream import Shots, token_tasks
from share_jax.models.pretrained_decoder import load_tokenizer_of

RATES: Mapping[str, Any] = {
    "rank": 8,
    "alpha": 16.0,
    "num_basis": 40,
    "learning_rate": 3e-3,
    "first_layer": 24,
    "steps": 60,
    "batch_size": 16,
    "eval_batch_size": 16,
}
"""Where the presets of decoders start."""

SMOKE: Mapping[str, Any] = {"first_layer": 28, "steps": 4, "train_per_task": 32, "test_per_task": 8}
"""A smoke test."""

SHOWN_MOST = 20
"""Test questions of a task that the untrained model is asked behind four examples; such prompts are long."""


def weights_of(config: Config) -> Path:
    """The decoder of `--weights`, a Hugging Face folder or a GGUF file; SmolLM2-135M without it."""
    return smollm2_file(config.cache_dir) if config.weights is None else config.weights


def token_stream(config: Config, tasks: Sequence[CompletionTask], tested: int = SHOWN_MOST) -> Stream:
    """The tasks as the decoder's tokens, task-incremental; `tested` questions are asked behind four examples."""
    shots = Shots(tested=tested) if "frozen_few_shot" in config.methods else None
    made = token_tasks(tasks, load_tokenizer_of(weights_of(config)), config.max_length, shots)
    return Stream(config.experiment, TASK, made)


def token_backbone(config: Config, stream: Stream, classes: int, dtype: Dtype) -> Backbone:
    """The decoder, whatever the tasks."""
    return decoder(weights_of(config), config.first_layer, dtype)
