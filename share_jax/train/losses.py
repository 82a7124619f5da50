"""Losses over padded batches: weight 0 marks an example that only fills the batch up.

A loss returns sums, never a mean. A batch may be computed in parts, on several devices or one microbatch after
another, and the parts may hold unlike numbers of examples that count: the mean of their means would be another number.
So sums are added over the parts, and the train step divides once, by the weight of the whole batch.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from share_jax.annotations import Float, Int
from share_jax.errors import InputError, message
from share_jax.typing import Array


class LossSums(NamedTuple):
    """What a loss returns for a batch, or for a part of one; parts are added leaf by leaf.

    Attributes:
      total: float32 scalar, sum of the examples' weighted losses; what is differentiated.
      weight: float32 scalar, sum of the weights; must not depend on the model's output.
      metrics: further scalars that are sums over examples, such as how many are right.

    Example:
        >>> def absolute(output, batch):
        ...     errors = jnp.abs(output - batch["labels"])
        ...     return LossSums(errors.sum(), jnp.float32(errors.size), {"largest": errors.max()})
        >>> sums = absolute(jnp.array([1.0, 2.0]), {"labels": jnp.array([0.0, 0.0])})  # Learner(..., loss=absolute)
        >>> float(sums.total / sums.weight)
        1.5
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]


class TaskLoss:
    """A loss of a task's batches that says how these are to be checked. Called as any other loss.

    Attributes:
      weighted: whether an example, or a token, of weight 0 only fills the batch up.
      classes: whether labels are classes, one for each example, and the model's last axis their logits.

    Example:
        >>> @task_loss(weighted=True)
        ... def absolute(output, batch):
        ...     errors = batch["weights"] * jnp.abs(output - batch["labels"])
        ...     return LossSums(errors.sum(), batch["weights"].sum(), {})
        >>> type(absolute).__name__, absolute.weighted, absolute.classes
        ('TaskLoss', True, False)
    """

    def __init__(self, sums: Callable[[Any, Any], LossSums], weighted: bool, classes: bool) -> None:
        """Takes the name and the docstring of the function."""
        self._sums, self.weighted, self.classes = sums, weighted, classes
        update_wrapper(self, sums)

    def __call__(self, output: Any, batch: Any) -> LossSums:
        """The sums over a batch, or a part of one."""
        return self._sums(output, batch)


def task_loss(*, weighted: bool = False, classes: bool = False) -> Callable[[Callable[[Any, Any], LossSums]], TaskLoss]:
    """Makes a `TaskLoss` of a function (model output, batch) to `LossSums`; a plain function is one without checks.

    Args:
        weighted: whether an example, or a token, of weight 0 only fills the batch up.
        classes: whether labels are classes, and the model's last axis their logits.

    >>> classification.weighted, classification.classes, regression.classes
    (True, True, False)
    """
    return lambda sums: TaskLoss(sums, weighted, classes)


def inverse(weight: Float[Array, ""]) -> Float[Array, ""]:
    """1 / weight, and 0 for a batch that holds nothing but padding."""
    return jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1), 0)


def report(sums: LossSums) -> dict[str, Float[Array, ""]]:
    """{"loss": the mean over the whole batch, and the metrics as they are}."""
    return {"loss": sums.total * inverse(sums.weight), **sums.metrics}


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
) -> LossSums:
    """Softmax cross entropy of the examples that count, in float32 and in nats.

    Args:
      logits: (batch, c), any float dtype.
      labels: (batch,), each below the task's number of classes; one that is not makes the mean NaN.
      weights: (batch,), 1 for an example and 0 for padding.
      classes: the task's number of classes, a scalar or one per example.

    Returns:
      The weighted sum, with the metrics "correct" and "examples": weighted counts.

    Example:
        >>> logits = jnp.zeros((2, 3))  # a head of width 3, of which this task has 2 classes
        >>> sums = cross_entropy(logits, jnp.array([0, 1]), jnp.ones(2), classes=jnp.int32(2))
        >>> round(float(sums.total / sums.weight), 4), float(sums.metrics["correct"])
        (0.6931, 1.0)
    """
    own = mask_classes(logits.astype(jnp.float32), classes)
    known = (labels >= 0) & (labels < classes) | (weights == 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(own, jnp.where(known, labels, 0))
    losses = jnp.where(known, losses, jnp.nan)
    examples = jnp.sum(weights)
    correct = jnp.sum(weights * (jnp.argmax(own, axis=-1) == labels))
    return LossSums(jnp.sum(weights * losses), examples, {"correct": correct, "examples": examples})


def _of_examples(outputs: Any, labels: Any, weights: Any) -> None:
    """Refuses labels and weights that are no vector: a column would be compared with every example.

    Raises:
        InputError: naming which.
    """
    for name, each in (("labels", labels), ("weights", weights)):
        if jnp.shape(each) != outputs.shape[:1]:
            got, expected = f"shape {jnp.shape(each)}", f"{outputs.shape[:1]}, one per example"
            raise InputError(message(name, got=got, expected=expected, fix=f"pass {name}[:, 0] of a column"))


@task_loss(weighted=True, classes=True)
def classification(logits: Float[Array, "batch c"], batch: Any) -> LossSums:
    """`cross_entropy` of a batch as `train.batches` makes it.

    Args:
      logits: (batch, c).
      batch: "labels" (batch,); "weights" (batch,), all 1 if absent; "classes", all c if absent.

    Example:
        >>> batch = {"labels": jnp.array([0, 1]), "weights": jnp.array([1.0, 0.0])}  # the last one is padding
        >>> sums = classification(jnp.zeros((2, 3)), batch)
        >>> round(float(sums.total), 4), float(sums.weight)
        (1.0986, 1.0)
    """
    labels = batch["labels"]
    weights = batch.get("weights", jnp.ones(labels.shape, jnp.float32))
    _of_examples(logits, labels, weights)
    return cross_entropy(logits, labels, weights, batch.get("classes", jnp.int32(logits.shape[-1])))


@task_loss(weighted=True)
def regression(outputs: Float[Array, "batch c"], batch: Any) -> LossSums:
    """Squared error of the first output, in float32.

    Args:
      outputs: (batch, c), any float dtype; columns past the first are not read.
      batch: "labels" (batch,), numbers; "weights" (batch,), all 1 if absent.

    Returns:
      The weighted sum, with the metrics "squared_error", the same sum, and "examples".

    Raises:
      InputError: labels or weights are not one per example, but a column, for example.

    Example:
        >>> sums = regression(jnp.array([[1.0, 9.0, 9.0], [3.0, 9.0, 9.0]]), {"labels": jnp.array([0.0, 3.0])})
        >>> float(sums.total), float(sums.weight)
        (1.0, 2.0)
    """
    labels = batch["labels"].astype(jnp.float32)
    weights = batch.get("weights", jnp.ones(labels.shape, jnp.float32))
    _of_examples(outputs, labels, weights)
    labels = jnp.where(weights == 0, 0, labels)  # 0 * NaN would be NaN
    total = jnp.sum(weights * jnp.square(outputs[:, 0].astype(jnp.float32) - labels))
    examples = jnp.sum(weights)
    return LossSums(total, examples, {"squared_error": total, "examples": examples})


@task_loss(weighted=True)
def per_task(outputs: Float[Array, "batch c"], batch: Any) -> LossSums:
    """`classification` of the examples whose task has classes and `regression` of those whose task has none.

    The choice is traced: one compiled step takes tasks of either kind, and batches of both.

    Args:
      outputs: (batch, c).
      batch: "labels" (batch,), float32 for both kinds: a class's number, or the number asked for; "classes", the task's
        number of classes, 0 for regression, a scalar or one per example; "weights" (batch,), all 1 if absent.

    Returns:
      The weighted sum, with the metrics "correct", "squared_error" and "examples".

    Example:
        >>> batch = {"labels": jnp.array([0.0, 0.5]), "classes": jnp.array([2, 0])}  # a class of two, and a number
        >>> sums = per_task(jnp.zeros((2, 3)), batch)
        >>> {name: float(value) for name, value in sums.metrics.items()}
        {'correct': 1.0, 'squared_error': 0.25, 'examples': 2.0}
    """
    labels = batch["labels"].astype(jnp.float32)
    weights = batch.get("weights", jnp.ones(labels.shape, jnp.float32))
    _of_examples(outputs, labels, weights)
    classes = jnp.broadcast_to(jnp.asarray(batch["classes"]), labels.shape)
    number = classes == 0
    whole = jnp.where(number, 0, labels).astype(jnp.int32)
    whole = jnp.where(number | (whole == labels), whole, -1)  # half a class is no class: its loss is NaN
    named = cross_entropy(outputs, whole, jnp.where(number, 0, weights), jnp.where(number, 1, classes))
    plain = regression(outputs, {"labels": labels, "weights": jnp.where(number, weights, 0)})
    examples = named.weight + plain.weight
    found = {"correct": named.metrics["correct"], "squared_error": plain.metrics["squared_error"], "examples": examples}
    return LossSums(named.total + plain.total, examples, found)
