"""An NNX module inside a Linen model by Flax's bridge: it keeps a tree of parameters in one scope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import base_variables
from flax import linen as nn
from flax import nnx

import share_jax

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)
MODULES = ("first/kernel", "mlp/down/kernel", "mlp/up/kernel")


class Inner(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(6, 9, rngs=rngs)
        self.down = nnx.Linear(9, 5, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.relu(self.up(x)))


class Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nnx.bridge.to_linen(Inner, name="mlp")(nn.Dense(6, name="first")(x))


@pytest.mark.parametrize("space", ["activation", "parameter"])
def test_its_kernels_are_adapted_like_any_other(space):
    """Start is the base, each task is the ordinary model on its effective parameters, a mixed batch its tasks: 1e-5."""
    model = Outer()
    base = base_variables(model, X)
    adapted = share_jax.adapt(model, base, X, targets=".*kernel", space=space)
    assert sorted(target.path for target in adapted.targets) == list(MODULES)
    trees = adapted.init(jax.random.key(1), base["params"], num_tasks=3)
    plain, run = jax.jit(model.apply), jax.jit(lambda variables, ids: adapted.apply(variables, X, task_id=ids))
    np.testing.assert_array_equal(run({**base, **trees}, jnp.int32(1)), plain(base, X))
    rng = np.random.default_rng(2)
    tasks = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), trees["tasks"])
    variables = {**base, **trees, "tasks": tasks}
    singles = [run(variables, jnp.int32(task)) for task in range(3)]
    for task, single in enumerate(singles):
        own = adapted.effective_params(variables, task)
        np.testing.assert_allclose(single, plain({"params": own}, X), rtol=1e-5, atol=1e-5)
    if space == "parameter":
        return
    ids = jnp.array([2, 0, 1, 2])
    want = jnp.stack([singles[task][row] for row, task in enumerate(ids.tolist())])
    np.testing.assert_allclose(run(variables, ids), want, rtol=1e-5, atol=1e-5)
