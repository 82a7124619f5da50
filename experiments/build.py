"""Puts a configuration's stream and backbone together."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp

from experiments.assets import minilm_folder
from experiments.config import Config
from experiments.models.backbone import Backbone, cached_inputs, digits_vit, minilm, prefix_cache
from experiments.models.tokenizer import load_tokenizer
from experiments.streams.base import Stream, TextTask, tokenize
from experiments.streams.clinc150 import clinc150
from experiments.streams.digits import digits5
from experiments.streams.newsgroups import newsgroups10

TASK_INCREMENTAL = "task-incremental"

PREFIX = "prefix"
"""Folder of the workdir for the frozen layers' outputs that do not fit into memory."""


def build(config: Config, notify: Callable[[str], None], tasks: int | None = None) -> tuple[Stream, Backbone]:
    """The stream of an experiment, its inputs cached through the frozen layers below `first_layer`, and the model.

    Args:
        config: the run's configuration.
        notify: told in a line what is being done.
        tasks: keep the first so many tasks alone; all when None.

    Raises:
        ShareError: weights or data cannot be had.
    """
    notify(f"Preparing {config.experiment}: weights and data")
    raw = raw_stream(config)
    raw = replace(raw, tasks=raw.tasks[:tasks])
    classes = max(len(task.classes) for task in raw.tasks)
    backbone = _backbone(config, classes)
    if config.first_layer == 0:
        return raw, backbone
    folder = config.workdir / PREFIX
    cache = prefix_cache(backbone, config.eval_batch_size, config.prefix_cache_bytes, folder)
    cached = []
    for number, task in enumerate(raw.tasks, start=1):
        notify(f"Preparing {config.experiment}: frozen layers, task {number} of {len(raw.tasks)}")
        cached.append(replace(task, train=cached_inputs(cache, task.train), test=cached_inputs(cache, task.test)))
    return replace(raw, tasks=tuple(cached)), backbone


def raw_stream(config: Config) -> Stream:
    """The stream of an experiment, its inputs as the whole model takes them.

    Raises:
        ShareError: the data cannot be had.
    """
    if config.experiment == "digits5":
        return digits5(config.order_seed)
    if config.experiment == "clinc150":
        texts: Sequence[TextTask] = clinc150(
            config.data_folder,
            seed=config.order_seed,
            train_per_task=config.train_per_task,
            test_per_task=config.test_per_task,
        )
    else:
        texts = newsgroups10(
            config.cache_dir,
            seed=config.order_seed,
            train_per_task=config.train_per_task,
            test_per_task=config.test_per_task,
        )
    encode = load_tokenizer(minilm_folder(config.cache_dir), config.max_length)
    return Stream(config.experiment, TASK_INCREMENTAL, tokenize(texts, encode, config.max_length))


def _backbone(config: Config, classes: int) -> Backbone:
    dtype = jnp.bfloat16 if config.bf16 else jnp.float32
    if config.experiment == "digits5":
        return digits_vit(config.order_seed, classes, dtype, config.first_layer)
    return minilm(config.cache_dir, classes, config.first_layer, dtype)
