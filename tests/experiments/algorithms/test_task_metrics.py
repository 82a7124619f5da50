"""The tasks' metrics against scikit-learn and scipy, and what degenerate answers get."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from experiments.task_metrics import (
    CORRELATIONS,
    OF_CLASSES,
    OF_NUMBERS,
    OF_TOKENS,
    accuracy,
    bits_per_byte_of,
    f1,
    matthews,
    measure,
    pearson,
    spearman,
)
from share_jax.errors import InputError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_metrics_of_classes_are_scikit_learns(classes):
    for size in (4, 50, 301):
        labels = RNG.integers(0, classes, size)
        said = np.where(RNG.random(size) < 0.6, labels, RNG.integers(0, classes, size))
        assert accuracy(said, labels) == pytest.approx(sk.accuracy_score(labels, said), abs=1e-12)
        assert matthews(said, labels) == pytest.approx(sk.matthews_corrcoef(labels, said), abs=1e-12)
        if classes == 2:
            assert f1(said, labels) == pytest.approx(sk.f1_score(labels, said), abs=1e-12)


def test_correlations_are_scipys():
    for size in (3, 40, 500):
        labels = np.round(RNG.random(size) * 5, 1).astype(np.float32)  # ties, as in STS-B
        said = (labels + RNG.normal(size=size)).astype(np.float32)
        assert pearson(said, labels) == pytest.approx(stats.pearsonr(said, labels)[0], abs=1e-6)
        assert spearman(said, labels) == pytest.approx(stats.spearmanr(said, labels)[0], abs=1e-9)
        assert spearman(np.round(said), labels) == pytest.approx(stats.spearmanr(np.round(said), labels)[0], abs=1e-9)


def test_constant_answers_are_worth_nothing():
    labels, ones = np.array([0, 1, 1, 0]), np.ones(4, int)
    assert matthews(ones, labels) == matthews(ones, ones) == 0
    assert f1(np.zeros(4, int), np.zeros(4, int)) == 0
    for correlation in (pearson, spearman):
        assert correlation(ones.astype(np.float32), labels.astype(np.float32)) == 0


def test_a_metric_reads_the_models_outputs():
    outputs = np.array([[3.0, 1.0, 0.0], [0.5, 2.0, 0.0], [1.0, 0.0, 2.0]], np.float32)
    assert measure("accuracy", outputs, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert measure("pearson", outputs, np.array([6.0, 1.0, 2.0], np.float32)) == pytest.approx(1)
    assert measure("pearson", outputs, np.array([-6.0, -1.0, -2.0], np.float32)) == pytest.approx(-1)
    assert set(CORRELATIONS) <= {*OF_CLASSES, *OF_NUMBERS}
    with pytest.raises(InputError, match="metric: got 'auc', expected one of accuracy, matthews"):
        measure("auc", outputs, np.zeros(3))


def scores(nats: list[list[float]], right: list[list[int]]) -> np.ndarray:
    return np.stack([np.array(nats, np.float32), np.array(right, np.float32)], axis=-1)


LABELS = np.array([[4, 5], [6, -1], [4, 7], [6, -1], [4, 5], [6, -1]])
"""Three questions with two answers each, the right one first."""

SCORES = scores(
    [[0.1, 0.1], [0.3, 9], [0.2, 0.2], [0.3, 9], [0.2, 0.2], [0.4, 9]], [[1, 1], [0, 1], [1, 0], *[[0, 1]] * 3]
)


def test_the_likeliest_answer_is_that_of_the_least_summed_nats_and_a_tie_is_wrong() -> None:
    assert measure("option_accuracy", SCORES, LABELS, options=2) == pytest.approx(1 / 3)
    assert measure("exact_match", SCORES, LABELS, options=2) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="answers of a question: got 1, expected two or more"):
        measure("option_accuracy", SCORES, LABELS)


def test_bits_per_byte_are_those_of_all_texts_together() -> None:
    saved = measure("bits_saved", SCORES, LABELS, nbytes=np.array([1, 2, 3, 4, 5, 6]))
    nats = 0.2 + 0.3 + 0.4 + 0.3 + 0.4 + 0.4
    assert bits_per_byte_of(saved) == pytest.approx(nats / np.log(2) / 21, rel=1e-6)
    with pytest.raises(InputError, match="bytes of the texts: got none"):
        measure("bits_saved", SCORES, LABELS)
    assert len(OF_TOKENS) == 4
