"""Jobs on a tiny model and a few digits, for tests of single methods."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tiny_run import tiny_vit

from experiments.algorithms.job import Job
from experiments.algorithms.loop import Sequence, StreamState
from experiments.algorithms.plan import Plan
from experiments.backbones.backbone import Backbone
from experiments.config.run_config import changed, preset
from experiments.report.progress import NullProgress
from experiments.streams.base import Split, Stream, Task
from experiments.streams.digits import digits5

TASKS, EXAMPLES = 3, 24


def _few(split: Split) -> Split:
    return Split({name: array[:EXAMPLES] for name, array in split.inputs.items()}, split.labels[:EXAMPLES])


@cache
def stream() -> Stream:
    """The first digits' tasks with few examples each."""
    tasks = digits5().tasks[:TASKS]
    return Stream(
        "few-digits", "task-incremental", tuple(Task(t.name, t.classes, _few(t.train), _few(t.test)) for t in tasks)
    )


@cache
def backbone() -> Backbone:
    """One narrow layer with random weights."""
    return tiny_vit(0, 2, jnp.float32, 0)


def job(folder: Path, steps: int = 3, **config: Any) -> Job:
    """A job of few updates, with every method's default numbers."""
    whole = replace(preset("digits5", "quick"), steps=steps, batch_size=8, eval_batch_size=24, numbers=())
    return Job("tested", changed(whole, **config), stream(), backbone(), 0, folder / "store", NullProgress())


def begun(folder: Path, plan: Plan, **config: Any) -> tuple[Sequence, StreamState]:
    """A sequence that has learnt nothing yet."""
    sequence = Sequence(job(folder, **config), plan)
    return sequence, sequence.restored()


def inputs(count: int = EXAMPLES) -> dict[str, np.ndarray]:
    """Some images."""
    return {name: array[:count] for name, array in stream().tasks[0].test.inputs.items()}
