"""Puts a configuration's stream and backbone together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from experiments.algorithms.objective import of_tokens
from experiments.backbones.backbone import Backbone, cached_inputs, cut_at, prefix_cache
from experiments.backbones.decoder import hidden_of
from experiments.config.experiment import experiment
from experiments.config.run_config import Config
from experiments.streams.base import Split, Stream, Task
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
    if of_tokens(raw) and _bytes_of(raw, backbone) <= config.prefix_cache_bytes:
        notify(f"Preparing {config.experiment}: frozen layers, once for all texts")
        return replace(raw, tasks=_tokens_cached(raw.tasks, backbone)), backbone
    cache = prefix_cache(backbone, config.eval_batch_size, config.prefix_cache_bytes, config.workdir / PREFIX)
    cached = []
    for number, task in enumerate(raw.tasks, start=1):
        notify(f"Preparing {config.experiment}: frozen layers, task {number} of {len(raw.tasks)}")
        cached.append(_with(task, iter([cached_inputs(cache, split) for split in _splits(task)])))
    return replace(raw, tasks=tuple(cached)), backbone


def _splits(task: Task) -> list[Split]:
    """Every split of a task, in the order of `_with`."""
    return [task.train, task.test, *task.further.values(), *([] if task.few_shot is None else [task.few_shot])]


def _with(task: Task, splits: Iterator[Split]) -> Task:
    """The task with other splits in place of its own."""
    train, test = next(splits), next(splits)
    further = {name: next(splits) for name in task.further}
    few_shot = None if task.few_shot is None else next(splits)
    return replace(task, train=train, test=test, further=further, few_shot=few_shot)


def _tokens_cached(tasks: Sequence[Task], backbone: Backbone) -> tuple[Task, ...]:
    """The frozen layers of all tasks together, since texts of several tasks may begin alike."""
    found = iter(hidden_of(backbone, [split for task in tasks for split in _splits(task)]))
    return tuple(_with(task, found) for task in tasks)


def _bytes_of(stream: Stream, backbone: Backbone) -> int:
    """What the frozen layers' output of a stream of tokens takes, float32."""
    places = sum(split.inputs["attention_mask"].size for task in stream.tasks for split in _splits(task))
    model: Any = backbone.model
    return 4 * places * model.config.hidden_size


def raw_stream(config: Config) -> Stream:
    """The stream of an experiment under its own protocol, its inputs as the whole model takes them.

    Raises:
        ShareError: the data cannot be had.
    """
    return experiment(config.experiment).stream(config)
