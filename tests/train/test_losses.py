"""The loss over padded batches, against numpy in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.errors import InputError
from share_jax.train.losses import LossSums, classification, cross_entropy, mask_classes, per_task, regression, report
from share_jax.train.update import checked


def reference(logits, labels, weights, classes):
    logits = np.asarray(logits, np.float64)
    total = 0.0
    for row, label, weight, own in zip(logits, labels, weights, np.broadcast_to(classes, len(logits)), strict=True):
        row = row[:own]
        total += weight * (np.log(np.exp(row - row.max()).sum()) + row.max() - row[label])
    return total / sum(weights)


def mean(*args):
    return report(cross_entropy(*args))["loss"]


def case(seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(3 * rng.standard_normal((5, 4)), jnp.float32)
    return logits, jnp.array([0, 1, 2, 1, 0]), jnp.array([1.0, 1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("classes", [4, 3, [3, 2, 4, 2, 1]])
def test_the_mean_over_examples_that_count_and_classes_that_the_task_has(classes):
    logits, labels, weights = case()
    metrics = report(cross_entropy(logits, labels, weights, jnp.asarray(classes)))
    np.testing.assert_allclose(metrics["loss"], reference(logits, labels, weights, classes), rtol=1e-5)
    assert float(metrics["examples"]) == 4.0
    own = np.where(np.arange(4) < np.broadcast_to(classes, 5)[:, None], logits, -np.inf)
    assert float(metrics["correct"]) == float((np.asarray(weights) * (own.argmax(1) == np.asarray(labels))).sum())


def test_padding_has_no_part_in_loss_or_gradient_whatever_it_holds():
    logits, labels, weights = case()
    gradient = jax.grad(lambda z: mean(z, labels, weights, jnp.int32(3)))
    other = logits.at[3].set(1e6)
    assert np.array_equal(mean(logits, labels, weights, jnp.int32(3)), mean(other, labels, weights, jnp.int32(3)))
    assert not np.asarray(gradient(logits))[3].any()
    assert not np.asarray(gradient(other))[3].any()
    assert not np.asarray(gradient(logits))[:, 3].any()


def test_a_batch_of_padding_alone_is_zero_and_not_nan():
    logits, labels, _ = case()
    assert float(mean(logits, labels, jnp.zeros(5), jnp.int32(4))) == 0.0


def test_weights_that_are_fractions_give_a_weighted_mean_even_below_one_in_all():
    logits, labels, _ = case()
    weights = jnp.array([0.1, 0.2, 0.0, 0.3, 0.05])
    np.testing.assert_allclose(mean(logits, labels, weights, jnp.int32(4)), reference(logits, labels, weights, 4), 1e-5)


def test_sums_of_unlike_parts_give_the_mean_of_the_whole_where_a_mean_of_means_would_not():
    logits, labels, weights = case()
    parts = [cross_entropy(logits[s], labels[s], weights[s], jnp.int32(4)) for s in (slice(0, 3), slice(3, 5))]
    whole = mean(logits, labels, weights, jnp.int32(4))
    added = report(jax.tree.map(jnp.add, *parts))
    np.testing.assert_allclose(added["loss"], whole, rtol=1e-6)
    assert abs(sum(report(part)["loss"] for part in parts) / 2 - whole) > 0.01
    assert isinstance(parts[0], LossSums)


def test_a_loss_that_returns_a_mean_is_refused_in_one_line():
    with pytest.raises(InputError, match="loss: got tuple, expected sums over the examples"):
        checked((jnp.float32(1.0), {}))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_logits_are_summed_in_float32(dtype):
    logits, labels, weights = case()
    got = mean(logits.astype(dtype), labels, weights, jnp.int32(3))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, reference(logits.astype(dtype), labels, weights, 3), rtol=1e-5)


def test_masked_classes_are_never_the_answer():
    masked = mask_classes(jnp.array([[1.0, 5.0, 9.0]]), jnp.int32(2))
    assert int(masked.argmax()) == 1
    assert np.isfinite(masked).all()


def test_each_task_has_its_own_loss():
    rng = np.random.default_rng(3)
    outputs = rng.normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, 2, 1.75, -3.5, 1, 0.5], np.float32)
    classes = np.array([2, 3, 0, 0, 4, 0], np.int32)
    weights = np.array([1, 1, 1, 1, 1, 0], np.float32)
    batch = {"labels": jnp.asarray(labels), "classes": jnp.asarray(classes), "weights": jnp.asarray(weights)}
    expected, slope = 0.0, np.zeros_like(outputs)
    for i, count in enumerate(classes[:5]):
        if count:
            own = np.exp(outputs[i, :count].astype(np.float64))
            chance = own / own.sum()
            expected -= np.log(chance[int(labels[i])])
            slope[i, :count] = chance - np.eye(count)[int(labels[i])]
        else:
            expected += (outputs[i, 0] - labels[i]) ** 2
            slope[i, 0] = 2 * (outputs[i, 0] - labels[i])
    sums = per_task(jnp.asarray(outputs), batch)
    np.testing.assert_allclose(sums.total, expected, rtol=1e-5)
    assert float(sums.weight) == float(sums.metrics["examples"]) == 5
    np.testing.assert_allclose(sums.metrics["squared_error"], np.sum((outputs[2:4, 0] - labels[2:4]) ** 2), rtol=1e-6)
    found = jax.grad(lambda out: per_task(out, batch).total)(jnp.asarray(outputs))
    np.testing.assert_allclose(found, slope, rtol=0, atol=1e-6)


def test_one_compiled_loss_serves_both_kinds_of_task():
    outputs = jnp.asarray(np.random.default_rng(4).normal(size=(3, 2)), jnp.float32)
    traced = jax.jit(chex.assert_max_traces(lambda out, batch: per_task(out, batch).total, n=1))
    named = {"labels": jnp.array([0.0, 1.0, 1.0]), "classes": jnp.int32(2), "weights": jnp.ones(3)}
    plain = {**named, "labels": jnp.array([0.5, -1.0, 7.0]), "classes": jnp.int32(0)}
    whole = {**named, "labels": jnp.array([0, 1, 1])}
    np.testing.assert_allclose(traced(outputs, named), classification(outputs, whole).total, rtol=1e-6)
    np.testing.assert_allclose(traced(outputs, plain), regression(outputs, plain).total, rtol=1e-6)


def test_a_label_that_is_no_class_has_no_loss():
    batch = {"labels": jnp.array([0.5]), "classes": jnp.int32(2), "weights": jnp.ones(1)}
    assert np.isnan(per_task(jnp.zeros((1, 2)), batch).total)
    assert np.isnan(per_task(jnp.zeros((1, 2)), {**batch, "labels": jnp.array([2.0])}).total)


@pytest.mark.parametrize("name", ["labels", "weights"])
@pytest.mark.parametrize("loss", [regression, per_task])
def test_a_column_is_not_compared_with_every_example(loss, name):
    batch = {"labels": jnp.arange(3.0), "weights": jnp.ones(3), "classes": jnp.int32(0)}
    assert float(loss(jnp.arange(3.0)[:, None], batch).total) == 0
    with pytest.raises(InputError, match=rf"{name}: got shape \(3, 1\), expected \(3,\), one per example"):
        loss(jnp.arange(3.0)[:, None], {**batch, name: batch[name][:, None]})
