"""Kernels that a program puts side by side before a product, against their effective parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import share_jax
from share_jax.errors import TargetError
from share_jax.trees import flat

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
IDS = jnp.asarray([2, 0, 1, 1])


def drawn(*shape, seed=0):
    return jnp.asarray(0.4 * np.random.default_rng((seed, *shape)).standard_normal(shape), jnp.float32)


def fused(params, x):
    """Joined along outputs, along inputs with a constant between, along an axis of their own, and before a loop."""
    heads = jnp.concatenate([params["query"], params["key"].T], axis=1).astype(jnp.float32)
    x = jnp.tanh(x @ heads)
    x = jnp.concatenate([x, x[:, ::-1]], axis=1) @ jnp.concatenate([params["up"], jnp.eye(4), params["down"]])
    gate, up = jnp.unstack(params["gated"])
    x = jax.nn.silu(x @ gate) * (x @ up)
    x = jnp.einsum("bd,kdh->bkh", x, jnp.stack([params["one"], params["other"]])).reshape(len(x), -1)
    cell = jnp.concatenate([params["input"], params["state"]], axis=0)

    def step(state, x):
        return jnp.tanh(jnp.concatenate([x, state], axis=1) @ cell), None

    state, _ = jax.lax.scan(step, jnp.zeros((len(x), 5)), jnp.stack([x, -2 * x]))
    return state


PARAMS = {
    "query": drawn(4, 4),
    "key": drawn(4, 4, seed=1),
    "up": drawn(4, 4, seed=2),
    "down": drawn(8, 4, seed=3),
    "gated": drawn(2, 4, 4),
    "one": drawn(4, 4, seed=4),
    "other": drawn(4, 4, seed=5),
    "input": drawn(8, 5),
    "state": drawn(5, 5),
}


def with_tasks(adapted, params, tasks=3):
    """Trees whose every leaf is drawn."""
    shapes = jax.eval_shape(partial(adapted.init, num_tasks=tasks), jax.random.key(0), params)
    leaves, structure = jax.tree.flatten(shapes)
    return structure.unflatten([drawn(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def check_against_effective(adapted, params, x, plain):
    """One task and one per example, by the function on what each task's parameters are."""
    variables = {"params": params, **with_tasks(adapted, params)}

    @jax.jit
    def everything(variables, x):
        single, mixed = (adapted.apply(variables, x, task_id=which) for which in (1, IDS))
        effective = [adapted.effective_params(variables, task) for task in range(3)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *effective)
        return single, mixed, jax.vmap(plain, in_axes=(0, None))(stacked, x)

    single, mixed, want = everything(variables, x)
    assert jnp.abs(want[0] - want[1]).max() > 1e-2
    np.testing.assert_allclose(single, want[1], **CLOSE)
    np.testing.assert_allclose(mixed, want[IDS, jnp.arange(4)], **CLOSE)


def test_kernels_side_by_side_take_each_its_update():
    x = drawn(4, 4)
    adapted = share_jax.adapt_function(fused, PARAMS, x, targets=".*", method=share_jax.SharedA(rank=2))
    assert len(adapted.targets) == len(PARAMS)
    check_against_effective(adapted, PARAMS, x, fused)


def test_a_learnt_token_among_the_input_is_no_kernel_and_hinders_none():
    def model(params, x):
        return jnp.concatenate([params["token"], x], axis=0) @ params["layer"]

    params, x = {"token": drawn(1, 4), "layer": drawn(4, 3)}, drawn(5, 4)
    assert len(share_jax.adapt_function(model, params, x, targets="layer").targets) == 1
    with pytest.raises(TargetError, match=r"target token: got .*dot_general"):
        share_jax.adapt_function(model, params, x, targets="token")


def test_experts_that_are_joined_along_their_own_axis_are_refused():
    def model(params, x):
        return jnp.einsum("ebd,edh->ebh", x, jnp.concatenate([params["one"], params["other"]]))

    params = {"one": drawn(2, 4, 3), "other": drawn(1, 4, 3)}
    with pytest.raises(TargetError, match="target one: got "):
        share_jax.adapt_function(model, params, drawn(3, 2, 4), targets="one")
    assert flat(params)["one"].shape == (2, 4, 3)
