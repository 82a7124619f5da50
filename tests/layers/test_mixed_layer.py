"""Adapted layers that answer a batch of different tasks through the kernel give what they give without it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import base_variables, filled

from share_jax import SeparateLoRA, Share, SharedA, SharedLoRADense, SharedLoRADenseGeneral, adapt
from share_jax.ops.mixed_batch import Kernel, mixed_kernel

IDS = jnp.array([2, 0, 2, 1])
KERNEL = Kernel(interpret=True)


def calls(run, *args):
    """How many kernels the traced program has."""
    return str(jax.make_jaxpr(run)(*args)).count("pallas_call")


CASES = {
    "dense": (lambda **kw: SharedLoRADense(5, **kw), (4, 3, 6), True),
    "bfloat16": (lambda **kw: SharedLoRADense(5, dtype=jnp.bfloat16, **kw), (4, 3, 6), True),
    "one row": (lambda **kw: SharedLoRADense(5, **kw), (4, 6), True),
    "heads": (lambda **kw: SharedLoRADenseGeneral((2, 3), **kw), (4, 3, 6), True),
    "out": (lambda **kw: SharedLoRADenseGeneral(5, axis=(-1, -2), **kw), (4, 3, 2, 6), True),
    "an axis in front": (lambda **kw: SharedLoRADenseGeneral(5, axis=1, **kw), (4, 3, 6), False),
}


@pytest.mark.parametrize("method", [SharedA(rank=2), SeparateLoRA(rank=2)], ids=lambda method: method.name)
@pytest.mark.parametrize("name", CASES)
def test_a_module_of_ones_own(name, method):
    """Sums of a few products of size one: 1e-5 in float32, two roundings of 2^-8 in bfloat16."""
    make, shape, takes = CASES[name]
    model = make(num_tasks=3, method=method)
    x = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    variables = base_variables(model, x, 0)
    run = lambda ids: model.apply(variables, x, ids)  # noqa: E731
    want = run(IDS)
    limit = 2e-2 if name == "bfloat16" else 1e-5
    with mixed_kernel(KERNEL):
        assert calls(run, IDS) == takes
        assert calls(run, jnp.int32(1)) == 0  # one task for the batch
        got = run(IDS)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got.astype(jnp.float32), want.astype(jnp.float32), rtol=limit, atol=limit)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm")(x))
        x = nn.gelu(nn.Dense(8, name="up")(x))
        return nn.Dense(3, name="head")(x.mean(1))


@pytest.mark.parametrize(
    ("method", "takes"),
    [(SharedA(rank=2), 5), (SeparateLoRA(rank=2), 5), (Share(3, 2), 0)],
    ids=["a", "separate", "share"],
)
def test_an_unmodified_model(method, takes):
    """Attention's four kernels and a Dense layer; each example's head is its own task's; gradients too, 1e-4."""
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, 5, 6)), jnp.float32)
    params = base_variables(Model(), x)["params"]
    adapted = adapt(
        Model(), {"params": params}, x, targets=["attention/.*/kernel", "up/kernel"], method=method, heads="head/.*"
    )
    trees = filled(jax.eval_shape(lambda key: adapted.init(key, params, 3), jax.random.key(1)))
    run = lambda tasks: adapted.apply({"params": params, **trees, "tasks": tasks}, x, task_id=IDS)  # noqa: E731

    def total(tasks):
        out = run(tasks)
        return jnp.sin(out).sum(), out

    want = jax.jit(jax.grad(total, has_aux=True))(trees["tasks"])
    with mixed_kernel(KERNEL):
        assert calls(run, trees["tasks"]) == takes
        got = jax.jit(jax.grad(total, has_aux=True))(trees["tasks"])
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4), got, want)
