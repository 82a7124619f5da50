"""Models that put the examples of a batch into another order: every layer takes the slot of the example it sees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import normal, with_adapters

from share_jax import SharedA, adapt
from share_jax.traced.batch_order import may_reorder

IDS = (2, 0, 1, 1)


class Sorted(nn.Module):
    """A layer between a sort of the examples and its inverse, as before a packed recurrence."""

    @nn.compact
    def __call__(self, x):
        order = jnp.argsort(x.sum(axis=1))
        return nn.Dense(3)(x[order])[jnp.argsort(order)]


class Turned(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x[::-1])[::-1]


class Rolled(nn.Module):
    by: int | None

    @nn.compact
    def __call__(self, x):
        by = self.by if self.by is not None else x[0, 0].astype(int) + 1
        return jnp.roll(nn.Dense(3)(jnp.roll(x, by, axis=0)), -by, axis=0)


class Picked(nn.Module):
    """By indices, as a dispatch to experts does when each example is one token."""

    @nn.compact
    def __call__(self, x):
        order = (3 * jnp.arange(len(x)) + 1) % len(x)
        y = nn.Dense(3)(x[order])
        return jnp.zeros_like(y).at[order].set(y)


class Scattered(nn.Module):
    @nn.compact
    def __call__(self, x):
        order = (jnp.arange(len(x)) + 2) % len(x)
        return nn.Dense(3)(jnp.zeros_like(x).at[order].set(x))[order]


class SortedFeatures(nn.Module):
    """As many of them as examples."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(jnp.sort(x, axis=1)[:, ::-1])


class OneFeatureEach(nn.Module):
    """Of as many as examples; none of them changes its place."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x[jnp.arange(len(x)), x.argmin(axis=1)][:, None])


MODELS = [Sorted(), Turned(), Rolled(1), Rolled(None), Picked(), Scattered(), SortedFeatures(), OneFeatureEach()]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_examples_that_change_their_places_keep_their_tasks(model):
    x = normal(4, 4)
    base = model.init(jax.random.key(0), x)
    adapted = adapt(model, base, x, targets=".*kernel", method=SharedA(rank=2))
    variables = with_adapters(adapted, base)
    singles = [adapted.apply(variables, x, task_id=task) for task in range(3)]
    want = np.stack([singles[task][i] for i, task in enumerate(IDS)])
    np.testing.assert_allclose(adapted.apply(variables, x, task_id=jnp.array(IDS)), want, rtol=2e-5, atol=2e-5)
    assert np.abs(want - singles[0]).max() > 1e-2


SIZE, LAST = 5, np.arange(5)


@jax.jit
def rows(x, places):
    return x[places, 0]


@pytest.mark.parametrize(
    ("function", "reorders"),
    [
        (lambda x, i: x[jnp.arange(SIZE), i], False),
        (lambda x, i: x[LAST, i], False),
        (lambda x, i: jnp.take_along_axis(x, i[:, None], axis=1), False),
        (lambda x, i: x.at[jnp.arange(SIZE)[:, None], jnp.arange(2)].add(1.0), False),
        (lambda x, i: rows(x, jnp.arange(SIZE)), False),
        (lambda x, i: rows(x, SIZE - 1 - jnp.arange(SIZE)), True),
        (lambda x, i: x[jnp.arange(1, SIZE + 1) % SIZE, i], True),
        (lambda x, i: x.at[LAST[::-1]].add(1.0), True),
        (lambda x, i: jnp.take(x, i, axis=0), True),
        (lambda x, i: jnp.concatenate([x[2:], x[:2]]), True),
        (lambda x, i: jnp.concatenate([x, x], axis=1)[:, 2:], False),
    ],
)
def test_examples_that_are_picked_in_their_order_keep_their_places(function, reorders):
    program = jax.make_jaxpr(function)(jnp.ones((SIZE, 4)), jnp.zeros(SIZE, int))
    assert may_reorder(program, SIZE) == reorders
