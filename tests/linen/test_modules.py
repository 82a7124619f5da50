"""The drop-in modules: the params of the Flax layer, the adapter of the formula, and errors instead of wrong tasks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import TASKS, TOKENS, base_variables, normal

from share_jax import (
    SeparateLoRA,
    SharedA,
    SharedLoRAConv,
    SharedLoRADense,
    SharedLoRADenseGeneral,
    SharedLoRAEmbed,
    TaskHead,
)
from share_jax.errors import InputError, TargetError, TaskError
from share_jax.trees import shapes

RANK = 2


# name: ours, Flax's, fields, input, (d_in, d_out)
CASES = {
    "dense": (SharedLoRADense, nn.Dense, {"features": 5}, normal(4, 3, 6), (6, 5)),
    "dense_2d_no_bias": (SharedLoRADense, nn.Dense, {"features": 5, "use_bias": False}, normal(4, 6), (6, 5)),
    "general_heads": (SharedLoRADenseGeneral, nn.DenseGeneral, {"features": (2, 3)}, normal(4, 3, 6), (6, 6)),
    "general_out": (
        SharedLoRADenseGeneral,
        nn.DenseGeneral,
        {"features": 5, "axis": (-2, -1)},
        normal(4, 3, 2, 6),
        (12, 5),
    ),
    "general_unsorted": (
        SharedLoRADenseGeneral,
        nn.DenseGeneral,
        {"features": 5, "axis": (-1, -2)},
        normal(4, 3, 2, 6),
        (12, 5),
    ),
    "general_middle": (SharedLoRADenseGeneral, nn.DenseGeneral, {"features": 5, "axis": 1}, normal(4, 3, 2), (3, 5)),
    "conv2d": (SharedLoRAConv, nn.Conv, {"features": 4, "kernel_size": (3, 2)}, normal(4, 6, 5, 3), (18, 4)),
    "conv2d_stride_valid_dilated": (
        SharedLoRAConv,
        nn.Conv,
        {"features": 4, "kernel_size": (3, 3), "strides": (2, 1), "padding": "VALID", "kernel_dilation": (1, 2)},
        normal(4, 7, 6, 3),
        (27, 4),
    ),
    "conv2d_groups": (
        SharedLoRAConv,
        nn.Conv,
        {"features": 6, "kernel_size": (3, 3), "feature_group_count": 2, "padding": ((1, 0), (0, 1))},
        normal(4, 5, 5, 4),
        (18, 6),
    ),
    "conv2d_input_dilation": (
        SharedLoRAConv,
        nn.Conv,
        {"features": 4, "kernel_size": (3, 3), "input_dilation": (2, 2), "padding": ((1, 1), (1, 1))},
        normal(4, 4, 4, 3),
        (27, 4),
    ),
    "conv1d_causal": (
        SharedLoRAConv,
        nn.Conv,
        {"features": 4, "kernel_size": 3, "padding": "CAUSAL"},
        normal(4, 6, 3),
        (9, 4),
    ),
    "conv1d_circular_depthwise": (
        SharedLoRAConv,
        nn.Conv,
        {"features": 6, "kernel_size": (3,), "padding": "CIRCULAR", "feature_group_count": 3},
        normal(4, 6, 3),
        (3, 6),
    ),
    "embed": (SharedLoRAEmbed, nn.Embed, {"num_embeddings": 9, "features": 5}, TOKENS, (9, 5)),
}
METHODS = [SharedA(rank=RANK), SeparateLoRA(rank=RANK)]


def made(case: str, method=METHODS[0]):
    ours, plain, fields, x, matrix = CASES[case]
    return ours(**fields, num_tasks=TASKS, method=method), plain(**fields), x, matrix


@functools.cache
def runner(model):
    return jax.jit(model.apply)


@functools.cache
def random_variables(case: str, method=METHODS[0]):
    model, plain, x, matrix = made(case, method)
    return model, plain, base_variables(model, x, 0), x, matrix


@pytest.mark.parametrize("case", CASES)
def test_params_are_those_of_the_flax_layer_by_name_and_value(case):
    model, plain, x, _ = made(case)
    mine = jax.jit(lambda key: model.init(key, x, 0))(jax.random.key(0))["params"]
    want = jax.jit(plain.init)(jax.random.key(0), x)["params"]
    assert jax.tree.structure(mine) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(want), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_the_whole_spec_tree_of_shared_and_tasks(case):
    _, _, variables, _, (d_in, d_out) = random_variables(case)
    assert set(variables) == {"params", "shared", "tasks"}
    assert shapes(variables["shared"]) == {"lora_a": (d_in, RANK)}
    assert shapes(variables["tasks"]) == {"lora_b": (TASKS, RANK, d_out)}
    _, _, variables, _, _ = random_variables(case, METHODS[1])
    assert set(variables) == {"params", "tasks"}
    assert shapes(variables["tasks"]) == {"lora_a": (TASKS, d_in, RANK), "lora_b": (TASKS, RANK, d_out)}


@pytest.mark.parametrize("case", ["dense", "general_out", "conv2d_groups", "embed"])
def test_a_pretrained_tree_loads_as_it_is_and_a_fresh_adapter_changes_nothing(case):
    model, plain, x, _ = made(case)
    pretrained = base_variables(plain, x)
    fresh = jax.jit(lambda key: model.init(key, x, 0))(jax.random.key(0))
    assert fresh["shared"]["lora_a"].any()
    assert not fresh["tasks"]["lora_b"].any()
    got = runner(model)({**fresh, **pretrained}, x, jnp.int32(1))
    np.testing.assert_allclose(got, runner(plain)(pretrained, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("case", CASES)
def test_the_adapter_equals_the_merged_kernel(case, method):
    model, plain, variables, x, _ = random_variables(case, method)
    kernel_name = "embedding" if plain.__class__ is nn.Embed else "kernel"
    kernel = np.asarray(variables["params"][kernel_name], np.float64)
    for task in range(TASKS):
        own = {k: np.asarray(v[task], np.float64) for k, v in variables["tasks"].items()}
        lora_a = own.get("lora_a", np.asarray(variables.get("shared", {}).get("lora_a", 0), np.float64))
        merged = kernel + method.alpha / method.rank * (lora_a @ own["lora_b"]).reshape(kernel.shape)
        params = {**variables["params"], kernel_name: jnp.asarray(merged, jnp.float32)}
        want = runner(plain)({"params": params}, x)
        got = runner(model)(variables, x, jnp.int32(task))
        assert np.abs(got - runner(plain)({"params": variables["params"]}, x)).max() > 1e-2
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("case", CASES)
def test_scalar_vector_and_per_example_ids_agree(case, method):
    model, _, variables, x, _ = random_variables(case, method)
    # One id for the batch may fold the update into the kernel, ids per example never do, and SeparateLoRA's first
    # product is batched for a vector of ids: sums in another order. The property asks for 1e-5.
    tolerance = {"rtol": 1e-6, "atol": 2e-6}
    run = runner(model)
    one = [run(variables, x, jnp.int32(task)) for task in range(TASKS)]
    for task in range(TASKS):
        vector = run(variables, x, jnp.full(4, task))
        np.testing.assert_allclose(vector, one[task], **tolerance)
    mixed = run(variables, x, jnp.array([2, 0, 1, 2]))
    np.testing.assert_allclose(
        mixed, np.stack([np.asarray(one[t])[i] for i, t in enumerate((2, 0, 1, 2))]), **tolerance
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_attend_equals_the_merged_table_transposed_scalar_and_mixed(method):
    model, plain, variables, _, _ = random_variables("embed", method)
    query = normal(4, 3, 5)
    attend = jax.jit(lambda v, q, ids: model.apply(v, q, ids, method="attend"))
    merged = []
    for task in range(TASKS):
        own = {k: v[task] for k, v in variables["tasks"].items()}
        lora_a = own.get("lora_a", variables.get("shared", {}).get("lora_a"))
        table = variables["params"]["embedding"] + method.scale * lora_a @ own["lora_b"]
        merged.append(plain.apply({"params": {"embedding": table}}, query, method="attend"))
        np.testing.assert_allclose(attend(variables, query, jnp.int32(task)), merged[task], rtol=1e-5, atol=1e-5)
    mixed = attend(variables, query, jnp.array([2, 0, 1, 2]))
    want = jnp.stack([merged[t][i] for i, t in enumerate((2, 0, 1, 2))])
    np.testing.assert_allclose(mixed, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("case", ["dense", "general_out", "conv2d_groups", "embed"])
def test_a_bf16_module_keeps_its_output_dtype_and_float32_parameters(case, method):
    ours, _, fields, x, _ = CASES[case]
    model = ours(**fields, num_tasks=TASKS, method=method, dtype=jnp.bfloat16)
    variables = jax.eval_shape(lambda key: model.init(key, x, 0), jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    for ids in (0, np.array([0, 1, 2, 0])):
        assert jax.eval_shape(model.apply, variables, x, ids).dtype == jnp.bfloat16


@pytest.mark.parametrize("case", ["dense", "general_out", "conv2d", "embed"])
def test_a_missing_task_id_is_an_error(case):
    model, _, variables, x, _ = random_variables(case)
    with pytest.raises(TypeError, match="task_id"):
        model.apply(variables, x)


@pytest.mark.parametrize("case", ["dense", "general_out", "conv2d", "embed"])
@pytest.mark.parametrize("bad", [TASKS, -1, np.array([0, 1, 2, 3])])
def test_a_concrete_id_out_of_range_is_a_task_error(case, bad):
    model, _, variables, x, _ = random_variables(case)
    with pytest.raises(TaskError):
        model.apply(variables, x, bad)
    with pytest.raises(TaskError):
        jax.eval_shape(lambda v, x: model.apply(v, x, bad), variables, x)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("case", ["dense", "general_out", "conv2d", "embed"])
def test_a_traced_id_out_of_range_gives_nan_and_not_another_task(case, method):
    model, _, variables, x, _ = random_variables(case, method)
    run = runner(model)
    for bad in (TASKS, -1):
        assert np.isnan(run(variables, x, jnp.int32(bad))).all()
        mixed = run(variables, x, jnp.array([0, bad, 1, 2]))
        assert np.isnan(mixed[1]).all()
        assert np.isfinite(mixed[jnp.array([0, 2, 3])]).all()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("case", ["dense", "general_heads", "conv2d_groups", "embed"])
def test_gradients_of_unused_slots_are_exactly_zero(case, method):
    model, _, variables, x, _ = random_variables(case, method)

    def loss(tasks, ids):
        return jnp.sum(model.apply({**variables, "tasks": tasks}, x, ids) ** 2)

    for ids, used in ((1, [1]), (np.array([0, 0, 2, 0]), [0, 2])):
        for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["tasks"], jnp.asarray(ids))):
            for slot in range(TASKS):
                assert bool(np.asarray(leaf)[slot].any()) == (slot in used)


def test_one_trace_serves_every_task():
    model, _, variables, x, _ = random_variables("dense")
    run = jax.jit(model.apply)
    for task in range(TASKS):
        run(variables, x, jnp.int32(task))
    assert run._cache_size() == 1


@pytest.mark.parametrize("count", [2, 5])
def test_ids_that_do_not_fit_the_batch_are_an_input_error(count):
    for case in ("dense", "general_out", "conv2d", "conv2d_groups", "embed"):
        for method in METHODS:
            model, _, variables, x, _ = random_variables(case, method)
            with pytest.raises(InputError, match="one id per example"):
                jax.eval_shape(model.apply, variables, x, np.zeros(count, np.int32))


def test_apply_without_the_adapter_collections_is_an_error_not_the_base_model():
    model, _, variables, x, _ = random_variables("dense")
    with pytest.raises(InputError, match="tasks"):
        model.apply({"params": variables["params"]}, x, 0)


def test_what_the_update_cannot_follow_is_refused_by_name():
    with pytest.raises(TargetError, match="batch_dims"):
        SharedLoRADenseGeneral(3, axis=-1, batch_dims=(0,)).init(jax.random.key(0), normal(4, 3), 0)
    with pytest.raises(TargetError, match="mask"):
        SharedLoRAConv(3, (3,), mask=jnp.ones((3, 2, 3))).init(jax.random.key(0), normal(4, 5, 2), 0)
    with pytest.raises(InputError, match="num_tasks"):
        SharedLoRADense(3, num_tasks=0).init(jax.random.key(0), normal(4, 3), 0)
    for method, got in ((SharedA, "the class SharedA"), ("share", "'share'")):
        with pytest.raises(InputError, match=f"method: got {got}"):
            SharedLoRADense(3, method=method).init(jax.random.key(0), normal(4, 3), 0)


class OwnModel(nn.Module):
    """A model of one's own from all modules, to hold the tree of a whole model."""

    wrap: str = "plain"

    @nn.compact
    def __call__(self, tokens, task_id):
        dense = {"plain": SharedLoRADense, "remat": nn.remat(SharedLoRADense), "jit": nn.jit(SharedLoRADense)}[
            self.wrap
        ]
        x = SharedLoRAEmbed(9, 6, num_tasks=TASKS, name="embed")(tokens, task_id)
        x = nn.gelu(dense(8, num_tasks=TASKS, name="up")(x, task_id))
        return TaskHead(3, num_tasks=TASKS, name="head")(x.mean(1), task_id)


def test_the_whole_spec_tree_of_a_model_of_ones_own():
    variables = jax.eval_shape(lambda key: OwnModel().init(key, TOKENS, 0), jax.random.key(0))
    assert {name: shapes(tree) for name, tree in variables.items()} == {
        "params": {"embed/embedding": (9, 6), "up/bias": (8,), "up/kernel": (6, 8)},
        "shared": {"embed/lora_a": (9, 4), "up/lora_a": (6, 4)},
        "tasks": {
            "embed/lora_b": (TASKS, 4, 6),
            "up/lora_b": (TASKS, 4, 8),
            "head/kernel": (TASKS, 8, 3),
            "head/bias": (TASKS, 3),
        },
    }


@pytest.mark.parametrize("wrap", ["remat", "jit"])
def test_own_modules_under_remat_and_jit_give_the_plain_logits_and_gradients(wrap):
    variables = base_variables(OwnModel(), TOKENS, 0)
    for ids in (jnp.array([0, 2, 1, 1]),):
        plain, wrapped = (
            jax.jit(jax.value_and_grad(lambda v, m=m, ids=ids: jnp.sum(m.apply(v, TOKENS, ids) ** 2)))(variables)
            for m in (OwnModel(), OwnModel(wrap))
        )
        for mine, theirs in zip(jax.tree.leaves(wrapped), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_own_modules_under_scan_adapt_each_layer_with_its_own_leaves():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, task_id):
            return jnp.tanh(SharedLoRADense(6, num_tasks=TASKS, name="d")(x, task_id)), None

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x, task_id):
            layers = nn.scan(
                Layer,
                variable_axes={"params": 0, "shared": 0, "tasks": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=3,
            )
            return layers(name="layers")(x, task_id)[0]

    x = normal(4, 6)
    variables = base_variables(Scanned(), x, 0)
    for ids in (2, np.array([0, 2, 1, 1])):
        want = x
        for index in range(3):
            one = jax.tree.map(lambda leaf, index=index: leaf[index], {k: v["layers"] for k, v in variables.items()})
            want, _ = runner(Layer())(one, want, jnp.asarray(ids))
        np.testing.assert_allclose(runner(Scanned())(variables, x, jnp.asarray(ids)), want, rtol=1e-6, atol=1e-6)


def test_the_head_of_a_task_is_a_dense_layer_of_its_own():
    head = TaskHead(3, num_tasks=TASKS)
    x = normal(4, 2, 5)
    variables = base_variables(head, x, 0)
    for ids in (1, np.array([0, 2, 1, 1])):
        got = runner(head)(variables, x, jnp.asarray(ids))
        for i, task in enumerate(np.broadcast_to(ids, 4)):
            want = (
                np.asarray(x)[i] @ np.asarray(variables["tasks"]["kernel"])[task]
                + np.asarray(variables["tasks"]["bias"])[task]
            )
            np.testing.assert_allclose(got[i], want, rtol=1e-6, atol=1e-6)
    with pytest.raises(TaskError):
        head.apply(variables, x, TASKS)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_head_refuses_ids_that_do_not_fit_the_batch(count):
    head = TaskHead(3, num_tasks=TASKS)
    variables = base_variables(head, normal(4, 6), 0)
    with pytest.raises(InputError, match=f"task_id: got {count} ids, expected one id per example"):
        head.apply(variables, normal(4, 6), np.zeros(count, np.int32))
