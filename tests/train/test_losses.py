"""The loss over padded batches, against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.train.losses import cross_entropy, mask_classes


def reference(logits, labels, weights, classes):
    logits = np.asarray(logits, np.float64)
    total = 0.0
    for row, label, weight, own in zip(logits, labels, weights, np.broadcast_to(classes, len(logits)), strict=True):
        row = row[:own]
        total += weight * (np.log(np.exp(row - row.max()).sum()) + row.max() - row[label])
    return total / max(sum(weights), 1.0)


def case(seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(3 * rng.standard_normal((5, 4)), jnp.float32)
    return logits, jnp.array([0, 1, 2, 1, 0]), jnp.array([1.0, 1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("classes", [4, 3, [3, 2, 4, 2, 1]])
def test_the_mean_over_examples_that_count_and_classes_that_the_task_has(classes):
    logits, labels, weights = case()
    got, metrics = cross_entropy(logits, labels, weights, jnp.asarray(classes))
    np.testing.assert_allclose(got, reference(logits, labels, weights, classes), rtol=1e-5)
    assert float(metrics["examples"]) == 4.0
    own = np.where(np.arange(4) < np.broadcast_to(classes, 5)[:, None], logits, -np.inf)
    assert float(metrics["correct"]) == float((np.asarray(weights) * (own.argmax(1) == np.asarray(labels))).sum())


def test_padding_has_no_part_in_loss_or_gradient_whatever_it_holds():
    logits, labels, weights = case()
    gradient = jax.grad(lambda z: cross_entropy(z, labels, weights, jnp.int32(3))[0])
    other = logits.at[3].set(1e6)
    assert np.array_equal(
        cross_entropy(logits, labels, weights, jnp.int32(3))[0], cross_entropy(other, labels, weights, jnp.int32(3))[0]
    )
    assert not np.asarray(gradient(logits))[3].any()
    assert not np.asarray(gradient(other))[3].any()
    assert not np.asarray(gradient(logits))[:, 3].any()


def test_a_batch_of_padding_alone_is_zero_and_not_nan():
    logits, labels, _ = case()
    got, _ = cross_entropy(logits, labels, jnp.zeros(5), jnp.int32(4))
    assert float(got) == 0.0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_logits_are_summed_in_float32(dtype):
    logits, labels, weights = case()
    got, _ = cross_entropy(logits.astype(dtype), labels, weights, jnp.int32(3))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, reference(logits.astype(dtype), labels, weights, 3), rtol=1e-5)


def test_masked_classes_are_never_the_answer():
    masked = mask_classes(jnp.array([[1.0, 5.0, 9.0]]), jnp.int32(2))
    assert int(masked.argmax()) == 1
    assert np.isfinite(masked).all()
