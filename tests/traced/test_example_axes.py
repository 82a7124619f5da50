"""Models that put the examples of a batch into another order: every layer takes the slot of the example it sees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import normal, with_adapters

from share_jax import SharedA, adapt
from share_jax.traced.example_axes import followed
from share_jax.traced.places import LOST, MIXED, Lies

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
OWN, MOVED, TURNED = Lies(0), Lies(0, order="moved"), Lies(0, order="turned")


@jax.jit
def rows(x, places):
    return x[places, 0]


def grouped(x):
    return x.reshape(SIZE, 2, 2)


def looped(x):
    def step(i, y):
        return jax.lax.dynamic_update_slice(y, jax.lax.dynamic_slice_in_dim(x, i, 1), (SIZE - 1 - i, 0))

    return jax.lax.fori_loop(0, SIZE, step, jnp.zeros_like(x))


@pytest.mark.parametrize(
    ("function", "lies"),
    [
        (lambda x, i: x[jnp.arange(SIZE), i], OWN),
        (lambda x, i: x[LAST, i], OWN),
        (lambda x, i: jnp.take_along_axis(x, i[:, None], axis=1), OWN),
        (lambda x, i: x.at[jnp.arange(SIZE)[:, None], jnp.arange(2)].add(1.0), OWN),
        (lambda x, i: jnp.zeros((SIZE, 4)).at[:, 1:3].set(x[:, :2]), OWN),
        (lambda x, i: rows(x, jnp.arange(SIZE)), OWN),
        (lambda x, i: rows(x, SIZE - 1 - jnp.arange(SIZE)), LOST),
        (lambda x, i: x[jnp.arange(1, SIZE + 1) % SIZE, i], LOST),
        (lambda x, i: x.at[LAST[::-1]].add(1.0), LOST),
        (lambda x, i: jnp.take(x, i, axis=0), MOVED),
        (lambda x, i: x[::-1], TURNED),
        (lambda x, i: x[::-1][::-1], OWN),
        (lambda x, i: jnp.concatenate([x[2:], x[:2]]), LOST),
        (lambda x, i: jnp.concatenate([x, x], axis=1)[:, 2:], OWN),
        (lambda x, i: jnp.stack(list(reversed(list(x)))), LOST),
        (lambda x, i: looped(x), LOST),
        (lambda x, i: jax.lax.pad(x, 0.0, [(-1, 1, 0), (0, 0, 0)]), LOST),
        (lambda x, i: x.T @ x, MIXED),
        (lambda x, i: x @ x.T, LOST),
        (lambda x, i: jax.nn.softmax(x @ jnp.ones((4, 3))), OWN),
        (lambda x, i: jnp.ones((3, 4)) @ x.T, Lies(1)),
        (lambda x, i: (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1), OWN),
        (lambda x, i: grouped(x).reshape(-1, 2), Lies(0, 2)),
        (lambda x, i: grouped(x).reshape(-1, 2).reshape(SIZE, 4), OWN),
        (lambda x, i: grouped(x).swapaxes(0, 1), Lies(1)),
        (lambda x, i: grouped(x).swapaxes(0, 1).reshape(-1, 2), LOST),
        (lambda x, i: jax.checkpoint(jnp.tanh)(x), OWN),
        (lambda x, i: jax.lax.scan(lambda c, s: (c + s, c * s), x[:, 0], x.T)[1], Lies(1)),
        (lambda x, i: jax.lax.scan(lambda c, s: (c[::-1], s), x, jnp.zeros(3))[0], LOST),
        (lambda x, i: jax.lax.map(jnp.tanh, x), LOST),
        (lambda x, i: jax.lax.while_loop(lambda y: y.sum() > 0, lambda y: y - 1, x), OWN),
        (lambda x, i: jax.lax.cond(x.sum() > 0, jnp.sin, lambda y: y[::-1], x), LOST),
        (lambda x, i: jnp.cumsum(x, axis=1), OWN),
        (lambda x, i: jnp.cumsum(x, axis=0), LOST),
        (lambda x, i: jnp.sort(x, axis=1), OWN),
        (lambda x, i: jnp.ones((9, 3))[i], OWN),
    ],
)
def test_the_batchs_axis_is_followed(function, lies):
    program = jax.make_jaxpr(function)(jnp.ones((SIZE, 4)), jnp.zeros(SIZE, int))
    assert followed(program, [OWN, OWN], SIZE).outputs == [lies]


@pytest.mark.parametrize(
    ("function", "mixes"),
    [
        (lambda x: x - x.mean(0, keepdims=True), "sub"),
        (lambda x: x / jnp.sqrt((x * x).sum(0, keepdims=True) + 1), "div"),
        (lambda x: jax.nn.softmax(x @ x.T), "dot_general"),
        (lambda x: x @ (x.T @ x), "dot_general"),
        (lambda x: jnp.cumsum(x, axis=0), "cumsum"),
        (lambda x: jnp.where(x.max() > 0, x, 0), "select_n"),
        (lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), "cond"),
        (lambda x: jax.lax.while_loop(lambda y: y.sum() > 0, lambda y: y - 1, x), "while"),
        (lambda x: jax.jit(lambda y: y + y.sum())(x), "add"),
        (lambda x: jax.lax.scan(lambda c, s: (c + s.mean(), s), x, x.T)[0], "add"),
        (lambda x: x.at[:, 0].set(x.sum(0)[0]), "scatter"),
        (lambda x: jax.nn.softmax(x) - x.mean(1, keepdims=True), None),
        (lambda x: jnp.einsum("bi,bj->bij", x, x), None),
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y * i, x), None),
        (lambda x: jax.lax.scan(lambda c, s: (c + s, c * s), x[:, 0], x.T)[0], None),
        (lambda x: (x, x - x.sum())[0], None),  # what no output needs
        (lambda x: jax.jit(lambda y: (y, y - y.sum()))(x)[0], None),
        (lambda x: jax.jit(lambda y: (y, y - y.sum()))(x)[1], "sub"),
    ],
)
def test_what_makes_an_example_depend_on_another_one_is_named(function, mixes):
    program = jax.make_jaxpr(function)(jnp.ones((SIZE, 4)))
    assert followed(program, [OWN], SIZE).mixes == mixes
