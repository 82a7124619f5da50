"""Test logits of a task, the accuracy read off them, and a digest that shows whether a single bit has changed."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.streams.base import Split
from experiments.task_metrics import measure
from share_jax.train.batches import eval_batches
from share_jax.typing import Tree


@dataclass(frozen=True)
class Score:
    """How a task is answered at some moment.

    Attributes:
        accuracy: the task's own metric on its test examples, for most tasks the fraction that are right.
        digest: sha256 of the test logits, float32.
    """

    accuracy: float
    digest: str


def predictions(
    predictor: Any,
    base: Tree,
    shared: Tree,
    slot: Tree,
    inputs: Mapping[str, np.ndarray],
    batch_size: int,
    point: Callable[[], None],
) -> np.ndarray:
    """Logits of any inputs, (examples, width of the head), float32; `point` is called after every batch."""
    parts = []
    labels = np.zeros(len(next(iter(inputs.values()))), np.int32)
    for batch in eval_batches(inputs, labels, batch_size=batch_size, classes=1):
        whole = np.asarray(predictor(base, shared, slot, batch["inputs"]), np.float32)
        parts.append(whole[batch["weights"] > 0])
        point()
    return np.concatenate(parts)


def score(values: np.ndarray, labels: np.ndarray, metric: str = "accuracy") -> Score:
    """A metric, of `experiments.task_metrics`, and digest of test logits (examples, outputs)."""
    return Score(measure(metric, values, labels), _digest(values))


def score_split(values: np.ndarray, split: Split, metric: str) -> Score:
    """A metric and digest of what a model answers to a whole split."""
    own = measure(metric, values, split.labels, options=split.options, nbytes=split.nbytes)
    return Score(own, _digest(values))


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
