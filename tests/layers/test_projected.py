"""A layer that is handed its products answers as one that takes them, and learns as it does; others refuse them."""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adapted_models import base_variables, filled, normal

from share_jax import Learner, SeparateLoRA, Share, SharedA, adapt
from share_jax.bank.bank import TaskBank
from share_jax.errors import InputError, TargetError
from share_jax.layers.projected import Projected
from share_jax.parameterizations.share import ShareAdapt
from share_jax.train.prefix_cache import PrefixCache

WIDTH, TOKENS, FIRST = 12, 5, "down/kernel"


class Cut(nn.Module):
    """Two layers, each with a residual; `kept` enters before the first one's second product."""

    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.up, self.down = nn.Dense(4 * WIDTH, dtype=self.dtype), nn.Dense(WIDTH, dtype=self.dtype)
        self.next, self.head = nn.Dense(WIDTH, dtype=self.dtype), nn.Dense(3, dtype=self.dtype)

    def below(self, x: jax.Array) -> dict[str, Any]:
        return {"inner": nn.gelu(self.up(x)), "beside": x}

    def __call__(self, x: jax.Array | None = None, kept: dict[str, Any] | None = None) -> jax.Array:
        kept = self.below(x) if kept is None else kept  # pyright: ignore[reportArgumentType]
        x = kept["beside"] + self.down(kept["inner"])
        return self.head((x + self.next(nn.gelu(x))).mean(axis=1))


METHODS = (SharedA(rank=3), Share(num_basis=6, pseudo_rank=2))


@cache
def made(method: Any, dtype: Any = jnp.float32) -> tuple[Any, dict[str, Any], jax.Array]:
    """An adapted model whose three tasks have updates of their own, its variables, and inputs."""
    x = normal(8, TOKENS, WIDTH)
    model = Cut(dtype)
    params = base_variables(model, x)["params"]
    adapted = adapt(model, {"params": params}, x, targets=[FIRST, "next/kernel"], heads="head/.*", method=method)
    trees = adapted.init(jax.random.key(2), params, 3)
    return adapted, {"params": params, **trees, "tasks": filled(trees["tasks"])}, x


def kept_of(adapted: Any, variables: dict[str, Any], x: jax.Array) -> dict[str, Any]:
    kept = adapted.model.apply({"params": variables["params"]}, x, method="below")
    return {**kept, "inner": adapted.project(FIRST, variables, kept["inner"])}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("task", [0, 2, np.arange(8) % 3], ids=["first", "last", "mixed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 3e-2)])
def test_the_answer_is_that_of_the_whole_model(method: Any, task: Any, dtype: Any, tolerance: float) -> None:
    adapted, variables, x = made(method, dtype)
    want = jax.jit(lambda x: adapted.apply(variables, x, task_id=task))(x)
    kept = jax.jit(lambda x: kept_of(adapted, variables, x))(x)
    got = jax.jit(lambda kept: adapted.apply(variables, kept=kept, task_id=task))(kept)
    assert got.dtype == want.dtype
    scale = np.abs(np.asarray(want, np.float32)).max()
    np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in (got, want)), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_gradients_of_a_task_are_those_of_the_whole_model(method: Any) -> None:
    adapted, variables, x = made(method)
    kept = kept_of(adapted, variables, x)
    slot = adapted.slot(variables["tasks"], 1)

    def slope(**inputs: Any) -> Any:
        total = lambda slot: (adapted.apply_slot(variables, slot, **inputs) ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(total))(slot)

    for got, want in zip(jax.tree.leaves(slope(kept=kept)), jax.tree.leaves(slope(x=x)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_what_is_kept_is_narrower_than_the_input_where_the_layer_narrows() -> None:
    adapted, variables, x = made(METHODS[0])
    kept = kept_of(adapted, variables, x)["inner"]
    assert isinstance(kept, Projected)
    assert (kept.plain.shape, kept.down.shape) == ((8, TOKENS, WIDTH), (8, TOKENS, 3))


def test_a_later_task_is_learnt_on_cached_products() -> None:
    """The first task trains A on inputs; a later one, on kept products, ends where it ends on inputs."""
    adapted, variables, x = made(METHODS[0])
    learner = Learner(adapted, {"params": variables["params"]}, optax.adamw(1e-2))
    labels = np.arange(8) % 3
    fresh = learner.start(adapted.init(jax.random.key(4), variables["params"], 2))
    bank = learner.learn(fresh, "first", [{"inputs": {"x": x}, "labels": labels}] * 5)
    assert not np.array_equal(bank.shared["down"]["lora_a"], fresh.shared["down"]["lora_a"])
    cache = PrefixCache(
        lambda v, inputs: kept_of(adapted, v, inputs["x"]), {"params": variables["params"], "shared": bank.shared}, 4
    )
    kept = cache.of({"x": np.asarray(x)})

    def second(inputs: Any) -> TaskBank:
        return learner.learn(bank, "second", [{"inputs": inputs, "labels": labels[::-1]}] * 5)

    one, other = second({"kept": kept}), second({"x": x})
    for got, want in zip(jax.tree.leaves(one.tasks), jax.tree.leaves(other.tasks), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(one.shared["down"]["lora_a"], bank.shared["down"]["lora_a"])


@pytest.mark.parametrize("method", [SeparateLoRA(rank=3), ShareAdapt(phi=2, pseudo_rank=2)], ids=lambda m: m.name)
def test_a_first_product_of_the_tasks_own_is_refused(method: Any) -> None:
    adapted, variables, x = made(method)
    with pytest.raises(TargetError, match="a first product of shared leaves alone; keep the layer's input"):
        kept_of(adapted, variables, x)


def test_a_layer_with_a_part_of_each_tasks_own_is_refused() -> None:
    adapted, variables, x = made(METHODS[0])
    heads = adapt(adapted.model, {"params": variables["params"]}, x, targets=FIRST, heads=["down/bias", "head/.*"])
    with pytest.raises(TargetError, match=r"heads of down/kernel: got \['down/bias'\]"):
        heads.project(FIRST, variables, x)


def test_what_products_cannot_be_taken_of_is_refused_in_one_line() -> None:
    adapted, variables, x = made(METHODS[0])
    inner = adapted.model.apply({"params": variables["params"]}, x, method="below")["inner"]
    for broken, match in (
        ({"params": variables["params"]}, "shared leaves of down/kernel: got a shared tree with"),
        ({"params": variables["params"], "shared": {}}, "shared leaves of down/kernel"),
        (variables["params"], 'expected a dict with "params"'),
    ):
        with pytest.raises(InputError, match=match):
            adapted.project(FIRST, broken, inner)
    for wrong in (x, inner.astype(int), inner[0, 0]):
        with pytest.raises(InputError, match=r"expected floats of shape \(batch, \.\.\., 48\)"):
            adapted.project(FIRST, variables, wrong)


def test_the_layers_own_dtype_is_kept_whatever_the_inputs_is() -> None:
    adapted, variables, x = made(METHODS[0], jnp.bfloat16)
    kept = adapted.model.apply({"params": variables["params"]}, x, method="below")
    wide = {**kept, "inner": kept["inner"].astype(jnp.float32)}
    seen: list[Any] = []

    def watch(next_fun: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        y = next_fun(*args, **kwargs)
        if context.module.path == ("down",):
            seen.append(y.dtype)
        return y

    with nn.intercept_methods(watch):
        adapted.apply(variables, kept=wide, task_id=0)
    with nn.intercept_methods(watch):
        adapted.apply(variables, kept={**wide, "inner": adapted.project(FIRST, variables, wide["inner"])}, task_id=0)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}


def test_other_layers_other_paths_and_parameter_space_are_refused() -> None:
    adapted, variables, x = made(METHODS[0])
    with pytest.raises(TargetError, match=r"path to project: got 'up/kernel', expected one of \['down/kernel'"):
        adapted.project("up/kernel", variables, x)
    model = nn.Sequential([nn.DenseGeneral((2, 3))])
    params = model.init(jax.random.key(0), x)["params"]
    general = adapt(model, {"params": params}, x, targets=".*kernel")
    with pytest.raises(TargetError, match="got DenseGeneral, expected a Dense"):
        general.project("layers_0/kernel", {"params": params, **general.init(jax.random.key(0), params, 1)}, x)
    inside = adapt(adapted.model, {"params": variables["params"]}, x, targets=FIRST, space="parameter")
    with pytest.raises(TargetError, match="space: got 'parameter'"):
        inside.project(FIRST, variables, x)


def test_ids_that_are_not_one_per_example_are_refused() -> None:
    adapted, variables, x = made(METHODS[0])
    kept = kept_of(adapted, variables, x)
    with pytest.raises(InputError, match="3 ids"):
        adapted.apply(variables, kept=kept, task_id=np.arange(3))
