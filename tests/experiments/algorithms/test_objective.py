"""The loss over a task's own outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.algorithms.objective import of_own_outputs
from share_jax.train.losses import classification

STARTS = (0, 2, 5)
ENDS = (2, 5, 9)


def drawn(task: int, count: int = 7):
    rng = np.random.default_rng(task)
    logits = jnp.asarray(rng.normal(size=(count, ENDS[-1])), jnp.float32)
    labels = jnp.asarray(rng.integers(STARTS[task], ENDS[task], count), jnp.int32)
    weights = jnp.ones(count).at[-1].set(0)
    return logits, {"labels": labels, "weights": weights, "classes": jnp.int32(ENDS[task])}


@pytest.mark.parametrize("task", range(3))
def test_it_is_the_loss_of_the_tasks_own_columns(task: int) -> None:
    logits, batch = drawn(task)
    found = of_own_outputs(classification, STARTS)(logits, batch)
    start, end = STARTS[task], ENDS[task]
    own = {**batch, "labels": batch["labels"] - start, "classes": jnp.int32(end - start)}
    expected = classification(logits[:, start:end], own)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-6)
    assert found.weight == expected.weight
    assert found.metrics == expected.metrics


def test_other_outputs_have_no_gradient() -> None:
    logits, batch = drawn(1)
    slope = jax.jit(jax.grad(lambda x: of_own_outputs(classification, STARTS)(x, batch).total))(logits)
    assert not np.any(np.delete(slope, np.s_[2:5], axis=1))
    assert np.all(np.any(slope[:-1, 2:5], axis=1))


def test_examples_may_be_of_different_tasks() -> None:
    parts = [drawn(task) for task in (2, 0)]
    logits = jnp.concatenate([part for part, _ in parts])
    batch = {name: jnp.concatenate([batch[name] for _, batch in parts]) for name in ("labels", "weights")}
    batch["classes"] = jnp.repeat(jnp.asarray([ENDS[2], ENDS[0]], jnp.int32), 7)
    loss = of_own_outputs(classification, STARTS)
    apart = sum(loss(part, own).total for part, own in parts)
    np.testing.assert_allclose(loss(logits, batch).total, apart, rtol=1e-6)
