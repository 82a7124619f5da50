"""How well one task is answered: the metric of each kind of task, in NumPy.

Predictions and labels are vectors of one length. The correlations are 0 where they are undefined, that is where one
side is constant: such answers tell nothing of the labels. A task of tokens has a row of scores for each text.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np

from share_jax.errors import InputError, message

Metric = Callable[[np.ndarray, np.ndarray], float]
"""(predictions (N,), labels (N,)) -> a number where more is better, at most 1."""


_SPOKEN = {"bits_saved": "1 - (bits per byte) / 8"}
"""How a metric is called where its name does not say it."""


def spoken(metrics: Iterable[str]) -> str:
    """What the score of tasks is called: their metric where all have the same, accuracy elsewhere.

    >>> spoken(["exact_match", "exact_match"]), spoken(["exact_match", "f1"]), spoken([])
    ('exact match', 'accuracy', 'accuracy')
    """
    found = set(metrics)
    if len(found) != 1:
        return "accuracy"
    metric = found.pop()
    return _SPOKEN.get(metric, metric.replace("_", " "))


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


def option_accuracy(scores: np.ndarray, labels: np.ndarray, options: int) -> float:
    """Share of the questions whose right answer is the likeliest of the allowed ones; a tie is wrong.

    How likely an answer is, is the sum of its tokens' nats, with the token that ends it; it is not divided by their
    number. An answer is then not preferred for being the beginning of another one.

    Args:
        scores: (N * options, K, 2) as of `exact_match`, of each question first the right answer.
        labels: (N * options, K), -1 where there is none.
        options: allowed answers of each question.

    >>> nats = np.array([[0.5, 0.0], [0.2, 0.1], [0.9, 0.0], [0.3, 0.7]])
    >>> option_accuracy(np.stack([nats, nats], axis=-1), np.array([[5, -1], [6, 7]] * 2), 2)
    0.5
    """
    nats = summed_nats(scores, labels).reshape(-1, options)
    return float(np.mean(nats[:, 0] < nats[:, 1:].min(axis=1)))


def bits_saved(scores: np.ndarray, labels: np.ndarray, nbytes: np.ndarray) -> float:
    """1 - (bits per byte) / 8: the share of the texts' bits that the model saves; below 0 where it costs more.

    Bits per byte are those of all texts together, and `bits_per_byte_of` gives them back.

    Args:
        scores: (N, K, 2) as of `exact_match`.
        labels: (N, K), -1 where there is none.
        nbytes: (N,) the texts' lengths in bytes of UTF-8.

    >>> scores = np.full((1, 2, 2), 8 * math.log(2))
    >>> bits_saved(scores, np.array([[5, 6]]), np.array([4]))
    0.5
    """
    return 1 - float(summed_nats(scores, labels).sum() / math.log(2) / np.sum(nbytes)) / 8


def bits_per_byte_of(saved: float) -> float:
    """The inverse of what `bits_saved` does with bits per byte.

    >>> bits_per_byte_of(0.75)
    2.0
    """
    return 8 * (1 - saved)


def summed_nats(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) the nats of each row's tokens, float64; arguments as of `exact_match`."""
    return np.where(labels >= 0, scores[..., 0].astype(np.float64), 0).sum(axis=1)


OF_TOKENS = ("exact_match", "token_accuracy", "option_accuracy", "bits_saved")
"""Metrics of tasks of a language model, on the scores of their tokens; the first is the default."""

CORRELATIONS = ("matthews", "pearson", "spearman")
"""Metrics that may be below 0, down to -1."""


def lowest(metric: str) -> float:
    """The least that a metric may be.

    >>> lowest("accuracy"), lowest("pearson"), lowest("bits_saved")
    (0.0, -1.0, -inf)
    """
    return -1.0 if metric in CORRELATIONS else -math.inf if metric == "bits_saved" else 0.0


def measure(
    metric: str, outputs: np.ndarray, labels: np.ndarray, *, options: int = 1, nbytes: np.ndarray | None = None
) -> float:
    """A metric of a model's outputs (N, width), or of scores of tokens (N, K, 2).

    Args:
        metric: its name.
        outputs: what the model answers.
        labels: what is right.
        options: rows of each question, of which the first has the right answer; of tokens alone.
        nbytes: (N,) the texts' lengths in bytes, for `bits_saved` alone.

    Raises:
        InputError: no such metric, or `options` or `nbytes` is not what it needs.
    """
    if metric in OF_CLASSES:
        return OF_CLASSES[metric](outputs.argmax(axis=-1), labels)
    if metric in OF_NUMBERS:
        return OF_NUMBERS[metric](outputs[:, 0], labels)
    if metric not in OF_TOKENS:
        expected = ", ".join((*OF_CLASSES, *OF_NUMBERS, *OF_TOKENS))
        raise InputError(message("metric", got=repr(metric), expected=f"one of {expected}", fix="check its name"))
    if metric == "option_accuracy":
        if options < 2:
            fix = "give each question all of its allowed answers"
            raise InputError(message("answers of a question", got=options, expected="two or more", fix=fix))
        return option_accuracy(outputs, labels, options)
    outputs, labels = outputs[::options], labels[::options]
    if metric == "bits_saved":
        if nbytes is None:
            fix = "give the split nbytes"
            raise InputError(message("bytes of the texts", got="none", expected="one number for each", fix=fix))
        return bits_saved(outputs, labels, nbytes[::options])
    return exact_match(outputs, labels) if metric == "exact_match" else token_accuracy(outputs, labels)


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of two tables (N, columns), their columns centred and taken together; 0 if one is constant."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    size = np.sqrt(np.sum(left**2) * np.sum(right**2))
    return float(np.clip(np.sum(left * right) / size, -1.0, 1.0)) if size > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
