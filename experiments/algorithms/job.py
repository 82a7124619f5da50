"""What a method is given, and what it gives back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optax

from experiments.backbones.backbone import Backbone, PooledFeatures
from experiments.config.methods import PROMPTED, method, rate_field
from experiments.config.run_config import Config, value
from experiments.devices import Devices
from experiments.report.progress import Progress
from experiments.streams.base import Stream
from share_jax.errors import InputError, message
from share_jax.runtime.preemption import Preemption


@dataclass(frozen=True)
class Job:
    """One method with one seed on one stream.

    Attributes:
        name: the method's name.
        config: the run's configuration; every method gets the same budget from it.
        stream: the tasks, their inputs ready for the backbone.
        backbone: the frozen model.
        seed: seeds initialisation and data order.
        folder: where this job keeps its checkpoint.
        progress: what it tells how far it is.
        preemption: what tells it to stop, and is told what there is to save.
        devices: what its steps run on.
        features: the frozen model's pooled vectors, which jobs on one stream and backbone share.
    """

    name: str
    config: Config
    stream: Stream
    backbone: Backbone
    seed: int
    folder: Path
    progress: Progress
    preemption: Preemption = field(default_factory=Preemption)
    devices: Devices = field(default_factory=Devices)
    features: PooledFeatures = field(default_factory=PooledFeatures)


@dataclass(frozen=True)
class Outcome:
    """What one job found.

    Attributes:
        accuracy: (T, T) fractions, row i after task i, nan where not evaluated.
        untrained: (T,) fractions of the untrained model, nan where not evaluated.
        seconds: wall time by phase.
        params: parameter counts by name.
        bytes: sizes by name, of files and of arrays.
        extra: further findings, JSON.
    """

    accuracy: np.ndarray
    untrained: np.ndarray
    seconds: Mapping[str, float]
    params: Mapping[str, int | float | None]
    bytes: Mapping[str, int]
    extra: Mapping[str, Any]


def run_method(job: Job) -> Outcome:
    """Runs the job's method.

    Raises:
        InputError: it is not for the stream's kind of task.
    """
    check_methods([job.name], job.stream)
    return method(job.name).run(job)


def example_of(job: Job) -> dict[str, np.ndarray]:
    """One example, as `adapt` traces the model with it.

    Without "targets": it names what is adapted, and a decoder without them gives logits for the same columns.
    """
    inputs = job.stream.tasks[0].train.inputs
    return {name: array[:1] for name, array in inputs.items() if name != "targets"}


def check_methods(names: Iterable[str], stream: Stream) -> None:
    """Refuses methods that are not for the stream's tasks: classes and numbers, or those of a language model.

    Raises:
        InputError: naming the first.
    """
    tokens = stream.tasks[0].kind == "tokens"
    for name in names:
        what = f"stream of method {name}"
        if tokens and (why := method(name).not_tokens):
            what, got, expected = f"method {name} on {stream.name}", why, "a method for a language model"
        elif not tokens and name in PROMPTED:
            got, expected = "classes", "the tasks of a language model"
        elif name == "frozen_few_shot" and any(task.few_shot is None for task in stream.tasks):
            got, expected = "no prompts with examples", "some"
        else:
            continue
        raise InputError(message(what, got=got, expected=expected, fix="leave it out of --methods"))


def peak_rate(job: Job) -> float:
    """The highest rate of everything but the heads: the method's own where it has one, else the run's."""
    return value(job.config, rate_field(job.name))


def schedule(config: Config, peak: float, steps: int, *, wait: float = 0.0) -> optax.Schedule:
    """The learning rate by the number of updates done: 10 % linear warm-up and cosine decay to zero within `steps`.

    Args:
        config: the run's configuration.
        peak: the highest rate.
        steps: updates in the task.
        wait: share of the updates in which the rate is zero, before the warm-up.
    """
    idle = int(wait * steps)
    warmup = max(1, (steps - idle) // 10)
    rate = optax.warmup_cosine_decay_schedule(0.1 * peak, peak, warmup, max(steps - idle, warmup + 1))
    return optax.join_schedules([optax.constant_schedule(0.0), rate], [idle]) if idle else rate


def transform(config: Config, peak: float, steps: int, *, wait: float = 0.0) -> optax.GradientTransformation:
    """AdamW with clipping, at the rate of `schedule`.

    Args:
        config: for the norm at which gradients are clipped, the weight decay, and the second moment's decay.
        peak: the highest rate.
        steps: updates in the task.
        wait: share of the updates in which the rate is zero, before the warm-up.
    """
    rate = schedule(config, peak, steps, wait=wait)
    adamw = optax.adamw(rate, b2=config.adam_b2, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
