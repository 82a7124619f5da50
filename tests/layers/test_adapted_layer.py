"""An adapted layer answers the same with its update beside it and merged into its kernel."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import base_variables, normal, with_adapters

from share_jax import SeparateLoRA, Share, SharedA, SharedLoRADense, SharedLoRADenseGeneral, adapt
from share_jax.layers import adapted_layer

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CLOSE_GRADIENTS = {"rtol": 1e-4, "atol": 1e-4}  # sums over 28 rows of terms up to 10
METHODS = [SharedA(3), SeparateLoRA(3), Share(6, 2)]


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(x)
        x = nn.Dense(12, use_bias=False, name="up")(nn.gelu(x))
        return nn.DenseGeneral((2, 3), axis=(-2, -1), name="out")(x.reshape(*x.shape[:-1], 3, 4)).sum(axis=(1, 2))


@cache
def adapted(method):
    x = 0.5 * normal(4, 7, 8)
    base = base_variables(Model(), x)
    model = adapt(Model(), base, x, targets=".*kernel", method=method)
    whole = with_adapters(model, base, 2)
    return model, base, {name: whole[name] for name in ("shared", "tasks")}, x


@pytest.fixture
def choose(monkeypatch):
    """Makes every layer fold, or none, and says how many could."""
    asked = []

    def choose(fold):
        asked.clear()
        monkeypatch.setattr(adapted_layer, "merging_pays", lambda *shape: asked.append(shape) is None and fold)
        return asked

    return choose


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_both_ways_give_the_same_logits_and_gradients(choose, method):
    model, base, trees, x = adapted(method)

    def objective(trees, x):
        logits = model.apply({**base, **trees}, x, task_id=1)
        return jnp.sin(logits).sum(), logits

    found = []
    for fold in (True, False):
        asked = choose(fold)
        slopes, logits = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))(trees, x)
        assert len(asked) == 6  # every kernel of the model
        assert (28, 8, 8, jnp.float32) in asked
        found.append((logits, slopes))
    (one, slopes), (other, wanted) = found
    np.testing.assert_allclose(one, other, **CLOSE)
    jax.tree.map(lambda mine, want: np.testing.assert_allclose(mine, want, **CLOSE_GRADIENTS), slopes, wanted)
    moved = np.abs(one - Model().apply(base, x)).max()
    assert moved > 0.1


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_mixed_batch_never_folds_and_agrees(choose, method):
    model, base, trees, x = adapted(method)
    asked = choose(True)
    run = jax.jit(lambda ids: model.apply({**base, **trees}, x, task_id=ids))
    whole = run(jnp.array([1, 0, 1, 0]))
    assert not asked
    for task in (0, 1):
        own = run(jnp.int32(task))
        rows = [1 - task, 3 - task]
        np.testing.assert_allclose(whole[np.array(rows)], own[np.array(rows)], **CLOSE)


@pytest.mark.parametrize(
    ("own", "plain"),
    [
        (SharedLoRADense(6, num_tasks=2), nn.Dense(6)),
        (SharedLoRADenseGeneral((2, 3), axis=(-2, -1), num_tasks=2), nn.DenseGeneral((2, 3), axis=(-2, -1))),
    ],
    ids=["dense", "general"],
)
def test_modules_of_ones_own_fold_and_start_at_the_plain_layer_to_the_bit(choose, own, plain):
    x = normal(4, 5, 8)
    variables = own.init(jax.random.key(1), x, 0)
    np.testing.assert_array_equal(own.apply(variables, x, 1), plain.apply({"params": variables["params"]}, x))
    moved = {**variables, "tasks": jax.tree.map(lambda leaf: leaf + 0.1, variables["tasks"])}
    found = []
    for fold in (True, False):
        asked = choose(fold)
        found.append(own.apply(moved, x, 1))
        assert len(asked) == 1
    np.testing.assert_allclose(*found, **CLOSE)
    assert np.abs(found[0] - own.apply(variables, x, 1)).max() > 0.01


def test_a_layer_in_bfloat16_keeps_its_update_beside_it(choose):
    """Where inputs cancel, an update of 2^-10 is all of the output; merged into weights of 1 it is rounded away."""
    layer = SharedLoRADense(3, num_tasks=1, method=SharedA(1, 1.0), dtype=jnp.bfloat16, use_bias=False)
    x = jnp.tile(jnp.array([1.0, -1.0, 1.0, -1.0]), (64, 1))
    a, b = jnp.array([[1.0], [0.0], [0.0], [0.0]]), jnp.full((1, 1, 3), 2.0**-10)
    variables = {"params": {"kernel": jnp.ones((4, 3))}, "shared": {"lora_a": a}, "tasks": {"lora_b": b}}
    assert (layer.apply(variables, x, 0) == 2.0**-10).all()
    choose(True)
    assert (layer.apply(variables, x, 0) == 0).all()
