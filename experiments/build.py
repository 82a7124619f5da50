"""Puts a configuration's stream and backbone together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from experiments.assets import minilm_folder
from experiments.backbones.backbone import (
    MNIST_VIT,
    Backbone,
    cached_inputs,
    cut_at,
    digits_vit,
    image_vit,
    minilm,
    prefix_cache,
)
from experiments.config.large import large_backbone, large_stream
from experiments.config.large_presets import LARGE
from experiments.config.run_config import Config
from experiments.streams.base import Stream, TextTask, tokenize
from experiments.streams.clinc150 import clinc150
from experiments.streams.digits import digits5
from experiments.streams.fashion import fashion_split, split_fashion5
from experiments.streams.held_out import held_out
from experiments.streams.mnist import mnist_split, rotated_mnist10, split_mnist5
from experiments.streams.newsgroups import newsgroups10
from experiments.streams.protocols import TASK, under
from experiments.streams.three_corpora import three_corpora
from share_jax.models.split_point import START, Cut
from share_jax.models.tokenizer import load_tokenizer

PRETRAINING_STEPS = 600
"""Of the vision transformer for MNIST and Fashion-MNIST; fewer in the quick preset."""

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
    raw = raw_stream(config)
    raw = replace(raw, tasks=raw.tasks[:tasks])
    raw = under(held_out(raw, config.order_seed) if config.held_out else raw, config.protocol)
    classes = max(task.outputs for task in raw.tasks)
    backbone = cut_at(_backbone(config, classes), config.first_sublayer)
    if Cut(config.first_layer, config.first_sublayer) == START:
        return raw, backbone
    folder = config.workdir / PREFIX
    cache = prefix_cache(backbone, config.eval_batch_size, config.prefix_cache_bytes, folder)
    cached = []
    for number, task in enumerate(raw.tasks, start=1):
        notify(f"Preparing {config.experiment}: frozen layers, task {number} of {len(raw.tasks)}")
        cached.append(replace(task, train=cached_inputs(cache, task.train), test=cached_inputs(cache, task.test)))
    return replace(raw, tasks=tuple(cached)), backbone


def raw_stream(config: Config) -> Stream:
    """The stream of an experiment under its own protocol, its inputs as the whole model takes them.

    Raises:
        ShareError: the data cannot be had.
    """
    if config.experiment in LARGE:
        return large_stream(config)
    limits: dict[str, Any] = {
        "seed": config.order_seed,
        "train_per_task": config.train_per_task,
        "test_per_task": config.test_per_task,
    }
    match config.experiment:
        case "digits5":
            return digits5(config.order_seed)
        case "split_mnist5":
            return split_mnist5(config.cache_dir, **limits)
        case "rotated_mnist10":
            return rotated_mnist10(config.cache_dir, **limits)
        case "split_fashion5":
            return split_fashion5(config.data_folder, config.cache_dir, **limits)
        case "clinc150":
            texts: Sequence[TextTask] = clinc150(config.data_folder, **limits)
        case "three_corpora":
            texts = three_corpora(config.cache_dir, **limits)
        case _:
            texts = newsgroups10(config.cache_dir, **limits)
    encode = load_tokenizer(minilm_folder(config.cache_dir), config.max_length)
    return Stream(config.experiment, TASK, tokenize(texts, encode, config.max_length))


def _backbone(config: Config, classes: int) -> Backbone:
    dtype = jnp.bfloat16 if config.bf16 else jnp.float32
    if config.experiment in LARGE:
        return large_backbone(config, classes, dtype)
    match config.experiment:
        case "digits5":
            return digits_vit(config.order_seed, classes, dtype, config.first_layer)
        case "split_mnist5" | "rotated_mnist10":
            train, _ = mnist_split(config.cache_dir)
        case "split_fashion5":
            train, _ = fashion_split(config.data_folder, config.cache_dir)
        case _:
            return minilm(config.cache_dir, classes, config.first_layer, dtype)
    name = "fashion-vit" if config.experiment == "split_fashion5" else "mnist-vit"
    steps = 60 if config.preset == "quick" else PRETRAINING_STEPS
    images, seed, first = train.inputs["images"], config.order_seed, config.first_layer
    return image_vit(name, images, MNIST_VIT, seed, classes, dtype, first, steps=steps)
