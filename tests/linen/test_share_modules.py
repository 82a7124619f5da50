"""Form 2 in Flax: the fast form, its kin for every layer, mixed batches, and serving an evolving subspace."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import base_variables, normal

import share_jax
from share_jax.adapters.factors import Factors
from share_jax.bank.accounting import count
from share_jax.errors import InputError
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.serving import coefficient_arrays, shared_leaves, state_arrays, state_of, task_leaves
from share_jax.subspace.state import factors_of

METHOD = Share(num_basis=5, pseudo_rank=3)
TASKS = 4


def drawn(tree: dict, seed: int) -> dict:
    """The tree with every leaf replaced by random numbers."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), tree)


X = normal(6, 7, 8)
IDS = jnp.arange(42).reshape(6, 7) % 9
LAYERS: dict[str, tuple[Callable[[], nn.Module], jax.Array]] = {
    "Dense": (lambda: share_jax.ShareDense(10, num_tasks=TASKS, method=METHOD), X),
    "DenseGeneral": (lambda: share_jax.ShareDenseGeneral((2, 5), num_tasks=TASKS, method=METHOD), X),
    "Conv": (lambda: share_jax.ShareConv(10, (3,), num_tasks=TASKS, method=METHOD), X),
    "Embed": (lambda: share_jax.ShareEmbed(9, 10, num_tasks=TASKS, method=METHOD), IDS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_fast_form_is_the_merged_kernel_and_a_mixed_batch_is_each_tasks_own(name: str) -> None:
    make, x = LAYERS[name]
    module = make()
    variables = jax.jit(module.init)(jax.random.key(0), x, task_id=jnp.int32(0))
    plain = {"Dense": nn.Dense(10), "DenseGeneral": nn.DenseGeneral((2, 5)), "Conv": nn.Conv(10, (3,))}.get(
        name, nn.Embed(9, 10)
    )
    run, of_plain = jax.jit(module.apply), jax.jit(plain.apply)
    base = of_plain({"params": variables["params"]}, x)
    np.testing.assert_array_equal(run(variables, x, task_id=jnp.int32(1)), base)
    variables = {**variables, "tasks": drawn(variables["tasks"], 1)}
    (leaf,) = [n for n in variables["params"] if n in ("kernel", "embedding")]
    outputs = []
    for task in range(TASKS):
        slot = {n: np.asarray(a[task], np.float64) for n, a in variables["tasks"].items()}
        shared = {n: np.asarray(a, np.float64) for n, a in variables["shared"].items()}
        delta = shared["basis_a"] @ slot["coeff_a"] @ slot["coeff_b"].T @ shared["basis_b"].T
        kernel = np.asarray(variables["params"][leaf], np.float64)
        merged = {**variables["params"], leaf: jnp.asarray(kernel + delta.reshape(kernel.shape), jnp.float32)}
        outputs.append(np.asarray(run(variables, x, task_id=jnp.int32(task))))
        np.testing.assert_allclose(outputs[-1], of_plain({"params": merged}, x), atol=1e-5, rtol=1e-5)
    ids = jnp.array([3, 0, 2, 2, 1, 0])
    mixed = np.asarray(run(variables, x, task_id=ids))
    for example, task in enumerate(np.asarray(ids)):
        np.testing.assert_allclose(mixed[example], outputs[task][example], atol=1e-5, rtol=1e-5)


def test_the_bases_are_orthonormal_and_a_side_smaller_than_k_is_padded_with_zeros() -> None:
    leaves = Share(num_basis=6).init_shared(jax.random.key(0), 4, 9)
    gram_a = np.asarray(leaves["basis_a"].T @ leaves["basis_a"])
    gram_b = np.asarray(leaves["basis_b"].T @ leaves["basis_b"])
    np.testing.assert_allclose(gram_a, np.diag([1.0] * 4 + [0.0] * 2), atol=1e-5)
    np.testing.assert_allclose(gram_b, np.eye(6), atol=1e-5)


def mlp() -> tuple[nn.Module, dict, jax.Array]:
    model = nn.Sequential([nn.Dense(12), nn.gelu, nn.Dense(5)])
    x = normal(6, 8)
    return model, base_variables(model, x)["params"], x


@pytest.mark.parametrize("method", [METHOD, ShareAdapt(phi=3, pseudo_rank=2)])
def test_an_unmodified_model_gives_the_same_in_both_spaces(method: Share | ShareAdapt) -> None:
    model, params, x = mlp()
    outputs = []
    for space in ("activation", "parameter"):
        adapted = share_jax.adapt(model, {"params": params}, x, targets=".*kernel", method=method, space=space)
        own = adapted.init(jax.random.key(1), params, 3)
        variables = {"params": params, "shared": own["shared"], "tasks": drawn(own["tasks"], 2)}
        run = jax.jit(adapted.apply)
        outputs.append([np.asarray(run(variables, x, task_id=jnp.int32(t))) for t in range(3)])
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4, rtol=1e-5)


def test_what_trains_alone_is_the_coefficients() -> None:
    model, params, x = mlp()
    adapted = share_jax.adapt(model, {"params": params}, x, targets=".*kernel", method=METHOD)
    own = adapted.init(jax.random.key(1), params, 3)
    assert count(own["tasks"]) == 3 * 2 * (2 * 5 * 3)
    assert adapted.counts(params, own, 3).per_task == 2 * (2 * 5 * 3)


def learnt_state(tasks: int, k: int | None = None):
    draw = np.random.default_rng(5).standard_normal
    adapters = {
        f"task {t}": {
            "layers_0/kernel": Factors(draw((8, 2)).astype("f"), draw((2, 12)).astype("f"), 0.5),
            "layers_2/kernel": Factors(draw((12, 1 + t % 2)).astype("f"), draw((1 + t % 2, 5)).astype("f")),
        }
        for t in range(tasks)
    }
    choice = Choice(explained_variance=1.0) if k is None else Choice(k=k)
    names = list(adapters)
    state = initialize({names[0]: adapters[names[0]]}, choice)
    for name in names[1:]:
        state = merge(state, {name: adapters[name]}, choice)
    return adapters, state


def test_a_served_subspace_answers_as_the_reconstructed_adapters_do() -> None:
    """Per task, against kernels merged in float64 from `factors_of`, with room for more columns than there are."""
    model, params, x = mlp()
    _, state = learnt_state(4, k=6)
    size = 16
    adapted = share_jax.adapt(model, {"params": params}, x, targets=".*kernel", method=Share(size, 4))
    modules = {target.path: target.module_path[0] for target in adapted.targets}
    shared = {modules[path]: shared_leaves(layer, size) for path, layer in state.layers.items()}
    run, plain = jax.jit(adapted.apply_slot), jax.jit(model.apply)
    for index, task in enumerate(state.tasks):
        slot = {modules[path]: task_leaves(layer, index, size, 4) for path, layer in state.layers.items()}
        got = run({"params": params, "shared": shared}, slot, x)
        merged = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        for path, factors in factors_of(state, task).items():
            delta = np.asarray(factors.lora_a, np.float64) @ np.asarray(factors.lora_b, np.float64) * factors.scale
            merged[modules[path]]["kernel"] = merged[modules[path]]["kernel"] + delta
        want = plain({"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), merged)}, x)
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=2e-5, rtol=1e-5)


def test_a_state_comes_back_from_its_arrays() -> None:
    _, state = learnt_state(3)
    again = state_of(state.tasks, state_arrays(state), [coefficient_arrays(state, t) for t in range(3)])
    assert again.tasks == state.tasks
    for path, layer in state.layers.items():
        for name, value in vars(layer).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(again.layers[path], name), value)
            else:
                assert getattr(again.layers[path], name) == value


def test_a_subspace_with_more_columns_than_are_served_is_refused() -> None:
    _, state = learnt_state(4)
    layer = state.layers["layers_0/kernel"]
    with pytest.raises(InputError, match="serve with a larger num_basis"):
        shared_leaves(layer, 2)
    with pytest.raises(InputError, match="coeff_a"):
        task_leaves(layer, 0, 16, 1)
