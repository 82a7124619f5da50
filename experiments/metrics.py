"""How well one task is answered: the metric of each kind of task, in NumPy.

Predictions and labels are vectors of one length. The correlations are 0 where they are undefined, that is where one
side is constant: such answers tell nothing of the labels.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from share_jax.errors import InputError, message

Metric = Callable[[np.ndarray, np.ndarray], float]
"""(predictions (N,), labels (N,)) -> a number where more is better, at most 1."""


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of the examples that are right.

    >>> accuracy(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1]))
    0.75
    """
    return float(np.mean(predicted == labels))


def matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation of classes, two or more; GLUE's metric of CoLA.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".

    >>> matthews(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1]))
    0.0
    """
    classes = np.arange(int(max(predicted.max(), labels.max())) + 1)
    said, true = predicted[:, None] == classes, labels[:, None] == classes
    return _correlation(said.astype(np.float64), true.astype(np.float64))


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where neither side has any of it. GLUE has it for MRPC.

    >>> f1(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]))
    0.5
    """
    both = np.sum((predicted == 1) & (labels == 1))
    either = np.sum(predicted == 1) + np.sum(labels == 1)
    return float(2 * both / either) if either else 0.0


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; GLUE's metric of STS-B.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 6)
    1.0
    """
    return _correlation(predicted.astype(np.float64)[:, None], labels.astype(np.float64)[:, None])


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties at their mean rank.

    >>> round(spearman(np.array([1.0, 2.0, 9.0]), np.array([0.0, 0.5, 0.6])), 6)
    1.0
    """
    return pearson(_ranks(predicted), _ranks(labels))


OF_CLASSES: Mapping[str, Metric] = MappingProxyType({"accuracy": accuracy, "matthews": matthews, "f1": f1})
"""Metrics of classification tasks, on the most likely class; the first is the default."""

OF_NUMBERS: Mapping[str, Metric] = MappingProxyType({"pearson": pearson, "spearman": spearman})
"""Metrics of regression tasks, on output 0; the first is the default."""


def exact_match(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of the examples whose every token is the likeliest: what greedy decoding then writes, to the end.

    Args:
        scores: (N, K, 2), of each token its nats and whether it is the likeliest.
        labels: (N, K), -1 where there is none.

    >>> exact_match(np.array([[[0.1, 1], [0, 1]], [[0.2, 1], [3.0, 0]]]), np.array([[5, -1], [5, 6]]))
    0.5
    """
    return float(np.mean(np.all((scores[..., 1] > 0) | (labels < 0), axis=1)))


def token_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of the tokens that are the likeliest; arguments as of `exact_match`.

    >>> token_accuracy(np.array([[[0.1, 1], [0, 1]], [[0.2, 1], [3.0, 0]]]), np.array([[5, -1], [5, 6]])).__round__(3)
    0.667
    """
    given = labels >= 0
    return float(np.sum((scores[..., 1] > 0) & given) / max(1, np.sum(given)))


OF_TOKENS: Mapping[str, Metric] = MappingProxyType({"exact_match": exact_match, "token_accuracy": token_accuracy})
"""Metrics of tasks of a language model, on the scores of their tokens; the first is the default."""

CORRELATIONS = ("matthews", "pearson", "spearman")
"""Metrics that may be below 0, down to -1."""


def measure(metric: str, outputs: np.ndarray, labels: np.ndarray) -> float:
    """A metric of a model's outputs (N, width), or of scores of tokens (N, K, 2).

    Raises:
        InputError: no such metric.
    """
    if metric in OF_CLASSES:
        return OF_CLASSES[metric](outputs.argmax(axis=-1), labels)
    if metric in OF_TOKENS:
        return OF_TOKENS[metric](outputs, labels)
    if metric not in OF_NUMBERS:
        expected = ", ".join((*OF_CLASSES, *OF_NUMBERS, *OF_TOKENS))
        raise InputError(message("metric", got=repr(metric), expected=f"one of {expected}", fix="check its name"))
    return OF_NUMBERS[metric](outputs[:, 0], labels)


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of two tables (N, columns), their columns centred and taken together; 0 if one is constant."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    size = np.sqrt(np.sum(left**2) * np.sum(right**2))
    return float(np.clip(np.sum(left * right) / size, -1.0, 1.0)) if size > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
