"""The labels of what trains, and updates that leave frozen leaves as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from share_jax.train.optimizer import apply_updates, labels, task_optimizer

TRAINED = {
    "shared": {"layer": {"lora_a": jnp.ones((3, 2))}},
    "slot": {"layer": {"lora_b": jnp.ones((2, 3))}, "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}},
}
HEADS = ("head/kernel", "head/bias")


@pytest.mark.parametrize(("first", "shared"), [(True, "shared"), (False, "frozen")])
def test_every_leaf_has_the_label_of_its_place(first, shared):
    assert labels(TRAINED, HEADS, train_shared=first) == {
        "shared": {"layer": {"lora_a": shared}},
        "slot": {"layer": {"lora_b": "adapter"}, "head": {"kernel": "head", "bias": "head"}},
    }


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_each_group_gets_its_own_transform(first, own):
    optimizer = task_optimizer(
        optax.sgd(1.0), HEADS, train_shared=first, head_transform=optax.sgd(10.0) if own else None
    )
    grads = jax.tree.map(jnp.ones_like, TRAINED)
    updates, _ = optimizer.update(grads, optimizer.init(TRAINED), TRAINED)
    rates = jax.tree.map(lambda leaf: float(leaf.ravel()[0]), updates)
    head = -10.0 if own else -1.0
    assert rates == {
        "shared": {"layer": {"lora_a": -1.0 if first else 0.0}},
        "slot": {"layer": {"lora_b": -1.0}, "head": {"kernel": head, "bias": head}},
    }


def test_clipping_ignores_frozen_leaves_and_counts_adapter_and_head_as_one_group():
    optimizer = task_optimizer(optax.clip_by_global_norm(1.0), HEADS, train_shared=False)
    grads = jax.tree.map(jnp.ones_like, TRAINED)
    huge = {**grads, "shared": jax.tree.map(lambda leaf: 1e6 * leaf, grads["shared"])}
    state = optimizer.init(TRAINED)
    for given in (grads, huge):
        updates, _ = optimizer.update(given, state, TRAINED)
        np.testing.assert_allclose(optax.tree.norm(updates["slot"]), 1.0, rtol=1e-6)
        np.testing.assert_allclose(updates["slot"]["head"]["bias"], 1 / np.sqrt(14), rtol=1e-6)


def test_nothing_shared_is_fine():
    trained = {"shared": {}, "slot": TRAINED["slot"]}
    for first in (True, False):
        optimizer = task_optimizer(optax.adamw(0.1), HEADS, train_shared=first)
        updates, _ = optimizer.update(trained, optimizer.init(trained), trained)
        assert jax.tree.structure(updates) == jax.tree.structure(trained)


def test_frozen_leaves_keep_even_a_negative_zero():
    trained = {"shared": {"lora_a": jnp.array([-0.0, 1.0])}, "slot": {"lora_b": jnp.ones(2)}}
    zeros = jax.tree.map(jnp.zeros_like, trained)
    after = apply_updates(trained, zeros, train_shared=False)
    assert np.array_equal(np.signbit(after["shared"]["lora_a"]), [True, False])
