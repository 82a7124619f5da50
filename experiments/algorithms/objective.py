"""The loss of a stream's tasks: cross entropy of classes or tokens, squared error where a task asks for a number."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.streams.base import Stream
from share_jax.train.losses import LossSums, classification, per_task
from share_jax.train.token_losses import next_token
from share_jax.train.update import Loss


def asks_for_numbers(stream: Stream) -> bool:
    """Whether any task is one of regression."""
    return any(task.kind == "regression" for task in stream.tasks)


def of_tokens(stream: Stream) -> bool:
    """Whether the tasks are those of a language model."""
    return stream.tasks[0].kind == "tokens"


def loss_of(stream: Stream) -> Loss:
    """One loss for all tasks, so that one compiled step trains them all."""
    if of_tokens(stream):
        return next_token
    return per_task if asks_for_numbers(stream) else classification


def of_own_outputs(inner: Loss, starts: tuple[int, ...]) -> Loss:
    """A loss over the outputs of each batch's task alone, where a task's classes are all outputs so far.

    Outputs of earlier tasks then have no gradient: nothing pushes them down while there are no examples of theirs.

    Args:
        inner: a loss of logits.
        starts: the first output of each task, rising.
    """

    def masked(logits: Array, batch: Any) -> LossSums:
        known, classes = jnp.asarray(starts)[None], jnp.atleast_1d(batch["classes"])[:, None]
        first = jnp.max(jnp.where(known < classes, known, 0), axis=1, keepdims=True)
        own = jnp.arange(logits.shape[-1])[None] >= first
        return inner(jnp.where(own, logits, jnp.finfo(logits.dtype).min), batch)

    return masked


def one_type(stream: Stream, labels: np.ndarray) -> np.ndarray:
    """Labels in the one type that the stream's batches have: float32 if any task asks for numbers."""
    return labels.astype(np.float32) if asks_for_numbers(stream) else labels
