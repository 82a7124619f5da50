"""Losses over padded batches: weight 0 marks an example that only fills the batch up."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def mask_classes(logits: Float[Array, "batch c"], classes: Int[Array, "..."]) -> Float[Array, "batch c"]:
    """The logits with those past a task's own classes at the lowest number, for heads padded to one width.

    Args:
      logits: (batch, c).
      classes: how many classes the task has, a scalar or one number per example.
    """
    column = jnp.arange(logits.shape[-1])[None]
    return jnp.where(column < jnp.atleast_1d(classes)[:, None], logits, jnp.finfo(logits.dtype).min)


def cross_entropy(
    logits: Float[Array, "batch c"],
    labels: Int[Array, " batch"],
    weights: Float[Array, " batch"],
    classes: Int[Array, "..."],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean softmax cross entropy over the examples that count, in float32.

    Args:
      logits: (batch, c), any float dtype.
      labels: (batch,), each below the task's number of classes.
      weights: (batch,), 1 for an example and 0 for padding.
      classes: the task's number of classes, a scalar or one per example.

    Returns:
      The mean, in nats, and {"correct", "examples"}: weighted counts.
    """
    own = mask_classes(logits.astype(jnp.float32), classes)
    losses = optax.softmax_cross_entropy_with_integer_labels(own, labels)
    examples = jnp.sum(weights)
    correct = jnp.sum(weights * (jnp.argmax(own, axis=-1) == labels))
    mean = jnp.sum(weights * losses) / jnp.maximum(examples, 1.0)
    return mean, {"correct": correct, "examples": examples}


def classification(logits: Float[Array, "batch c"], batch: Any) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`cross_entropy` of a batch as `train.batches` makes it.

    Args:
      logits: (batch, c).
      batch: "labels" (batch,); "weights" (batch,), all 1 if absent; "classes", all c if absent.
    """
    labels = batch["labels"]
    weights = batch.get("weights", jnp.ones(labels.shape, jnp.float32))
    return cross_entropy(logits, labels, weights, batch.get("classes", jnp.int32(logits.shape[-1])))
