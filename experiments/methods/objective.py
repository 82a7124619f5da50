"""The loss of a stream's tasks: cross entropy, and squared error where a task asks for a number."""

import numpy as np

from experiments.streams.base import Stream
from share_jax.train.losses import classification, per_task
from share_jax.train.update import Loss


def asks_for_numbers(stream: Stream) -> bool:
    """Whether any task is one of regression."""
    return any(task.kind == "regression" for task in stream.tasks)


def loss_of(stream: Stream) -> Loss:
    """One loss for all tasks, so that one compiled step trains them all."""
    return per_task if asks_for_numbers(stream) else classification


def one_type(stream: Stream, labels: np.ndarray) -> np.ndarray:
    """Labels in the one type that the stream's batches have: float32 if any task asks for numbers."""
    return labels.astype(np.float32) if asks_for_numbers(stream) else labels
