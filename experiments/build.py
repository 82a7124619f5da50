"""Puts a configuration's stream and backbone together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from experiments.algorithms.objective import of_tokens
from experiments.backbones.backbone import Backbone, cached_inputs, cut_at, prefix_cache
from experiments.backbones.decoder import hidden_of
from experiments.config.experiment import experiment
from experiments.config.run_config import Config
from experiments.streams.base import Split, Stream
from experiments.streams.held_out import held_out
from experiments.streams.protocols import under
from share_jax.models.split_point import START, Cut

PREFIX = "prefix"
"""Folder of the workdir for the frozen layers' outputs that do not fit into memory."""


def build(config: Config, notify: Callable[[str], None], tasks: int | None = None) -> tuple[Stream, Backbone]:
    """The stream of an experiment, with cached inputs where the lowest layers are frozen, and the model.

    Args:
        config: the run's configuration.
        notify: told in a line what is being done.
        tasks: keep the first so many tasks alone; all when None.

    Raises:
        ShareError: weights or data cannot be had.
    """
    notify(f"Preparing {config.experiment}: weights and data")
    whole = raw_stream(config)
    raw = replace(whole, tasks=whole.tasks[:tasks])
    raw = under(held_out(raw, config.order_seed) if config.held_out else raw, config.protocol)
    classes = max(task.outputs for task in raw.tasks)
    dtype = jnp.bfloat16 if config.bf16 else jnp.float32
    model = experiment(config.experiment).backbone(config, whole, classes, dtype)
    backbone = cut_at(model, config.first_sublayer)
    if Cut(config.first_layer, config.first_sublayer) == START:
        return raw, backbone
    kept, cached = _frozen_layers(config, raw, backbone), []
    for number, task in enumerate(raw.tasks, start=1):
        notify(f"Preparing {config.experiment}: frozen layers, task {number} of {len(raw.tasks)}")
        further = {name: kept(split) for name, split in task.further.items()}
        cached.append(replace(task, train=kept(task.train), test=kept(task.test), further=further))
    return replace(raw, tasks=tuple(cached)), backbone


def _frozen_layers(config: Config, stream: Stream, backbone: Backbone) -> Callable[[Split], Split]:
    """What puts the frozen layers' outputs in place of a split's inputs; of tokens in memory, short texts short."""
    if of_tokens(stream):
        splits = [split for task in stream.tasks for split in (task.train, task.test, *task.further.values())]
        places = sum(split.inputs["attention_mask"].size for split in splits)
        model: Any = backbone.model
        if 4 * places * model.config.hidden_size <= config.prefix_cache_bytes:
            return lambda split: hidden_of(backbone, split, config.length_buckets, config.eval_batch_size)
    cache = prefix_cache(backbone, config.eval_batch_size, config.prefix_cache_bytes, config.workdir / PREFIX)
    return lambda split: cached_inputs(cache, split)


def raw_stream(config: Config) -> Stream:
    """The stream of an experiment under its own protocol, its inputs as the whole model takes them.

    Raises:
        ShareError: the data cannot be had.
    """
    return experiment(config.experiment).stream(config)
