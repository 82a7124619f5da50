"""An adapted, unmodified model: both spaces equal the merged kernel, a mixed batch equals its tasks' own batches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import (
    IMAGE,
    MIXED,
    SEQUENCE,
    TASKS,
    TOKENS,
    Attention,
    Conditional,
    Convolutions,
    Ensemble,
    FunctionRemat,
    General,
    MethodJit,
    Mlp,
    Reused,
    Scanned,
    SetupMethodJit,
    SetupStyle,
    TiedLanguageModel,
    Twice,
    base_variables,
    merged_params,
    with_adapters,
)

from share_jax import SeparateLoRA, SharedA, adapt
from share_jax.trees import shapes

ALL = r"(.*/)?(kernel|embedding)"
# name: model, input, pattern, how many kernels
MODELS = {
    "root_dense": (nn.Dense(3), SEQUENCE, "kernel", 1),
    "root_conv": (nn.Conv(4, (3, 3)), IMAGE, "kernel", 1),
    "root_embed": (nn.Embed(9, 4), TOKENS, "embedding", 1),
    "two_blocks": (Twice(), SEQUENCE, ALL, 5),
    "setup_style_kwargs": (SetupStyle(), SEQUENCE, ALL, 3),
    "reused": (Reused(), SEQUENCE, ALL, 1),
    "attention": (Attention(), SEQUENCE, ALL, 4),
    "general": (General(), SEQUENCE, ALL, 2),
    "convolutions": (Convolutions(), IMAGE, ALL, 2),
    "tied_attend": (TiedLanguageModel(), TOKENS, ALL, 2),
    "remat_class": (Twice(nn.remat(Mlp)), SEQUENCE, ALL, 5),
    "remat_function": (FunctionRemat(), SEQUENCE, ALL, 2),
    "one_of_three_names": (Twice(), SEQUENCE, "Dense_0/kernel", 1),
    "jit_class": (Twice(nn.jit(Mlp)), SEQUENCE, ALL, 5),
    "jit_class_one_block": (Twice(nn.jit(Mlp)), SEQUENCE, r"JitMlp_1/.*kernel", 2),
    "jit_method": (MethodJit(), SEQUENCE, ALL, 2),
    "jit_setup_method": (SetupMethodJit(), SEQUENCE, ALL, 2),
    "scan": (Scanned(), SEQUENCE, ALL, 3),
    "scan_remat": (Scanned(remat=True), SEQUENCE, ALL, 3),
    "scan_broadcast": (Scanned((), ("params", "shared", "tasks")), SEQUENCE, ALL, 3),
    "vmap": (Ensemble(), SEQUENCE, ALL, 2),
    "cond": (Conditional(), SEQUENCE, "right/kernel", 1),
}
METHODS = [SharedA(rank=2, alpha=3.0), SeparateLoRA(rank=2, alpha=3.0)]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def both(model, base, x, pattern, method):
    return (adapt(model, base, x, targets=pattern, method=method, space=space) for space in ("activation", "parameter"))


ONCE = ("root_dense", "root_embed", "two_blocks", "one_of_three_names", "jit_class_one_block", "scan_broadcast")
"""Models whose kinds of layer and transform others have too: one parameterisation is enough."""


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name in MODELS for method in (METHODS[:1] if name in ONCE else METHODS)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_property_9_and_10_both_spaces_equal_the_merged_kernel_and_mixed_batches_their_tasks(name, method):
    model, x, pattern, kernels = MODELS[name]
    base = base_variables(model, x)
    activation, parameter = both(model, base, x, pattern, method)
    assert len(activation.targets) == kernels
    variables = with_adapters(activation, base)

    @jax.jit
    def everything(variables, x, task, ids):
        return (
            activation.apply(variables, x, task_id=task),
            parameter.apply(variables, x, task_id=task),
            activation.apply(variables, x, task_id=ids),
        )

    plain = jax.jit(model.apply)
    unadapted = plain(base, x)
    ids = jnp.array(MIXED)
    answers = []
    for task in range(TASKS):
        by_activation, by_parameter, mixed = everything(variables, x, jnp.int32(task), ids)
        want = plain({"params": merged_params(variables, task, method.scale)}, x)
        assert np.abs(want - unadapted).max() > 1e-2
        np.testing.assert_allclose(by_activation, want, **CLOSE)
        np.testing.assert_allclose(by_parameter, want, **CLOSE)
        answers.append(np.asarray(by_activation))
    np.testing.assert_allclose(mixed, np.stack([answers[t][i] for i, t in enumerate(MIXED)]), **CLOSE)
    assert everything._cache_size() == 1


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("attention", METHODS[1]),
        ("convolutions", METHODS[1]),
        ("jit_class", METHODS[0]),
        ("scan_remat", METHODS[0]),
        ("tied_attend", METHODS[0]),
    ],
    ids=str,
)
def test_gradients_through_both_spaces_agree(name, method):
    model, x, pattern, _ = MODELS[name]
    base = base_variables(model, x)
    spaces = both(model, base, x, pattern, method)
    variables = None
    grads = []
    for adapted in spaces:
        variables = variables or with_adapters(adapted, base)

        def loss(trained, adapted=adapted):
            return jnp.mean(adapted.apply_slot({**base, "shared": trained[0]}, trained[1], x) ** 2)

        slot = jax.tree.map(lambda leaf: leaf[1], variables["tasks"])
        grads.append(jax.jit(jax.grad(loss))((variables["shared"], slot)))
    for one, other in zip(*map(jax.tree.leaves, grads), strict=True):
        assert np.abs(one).max() > 1e-6
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_property_9_a_fresh_adapter_gives_the_base_logits():
    model, x, pattern, _ = MODELS["scan_broadcast"]
    base = base_variables(model, x)
    activation, parameter = both(model, base, x, pattern, METHODS[1])
    fresh = jax.jit(lambda key: activation.init(key, base["params"], TASKS))(jax.random.key(0))
    assert any(leaf.any() for leaf in jax.tree.leaves(fresh))
    for adapted in (activation, parameter):
        got = jax.jit(lambda v, a=adapted: a.apply(v, x, task_id=jnp.int32(2)))({**base, **fresh})
        np.testing.assert_allclose(got, jax.jit(model.apply)(base, x), rtol=0, atol=1e-6)


def test_task_a_then_b_then_a_gives_the_same_bits():
    model, x, pattern, _ = MODELS["attention"]
    base = base_variables(model, x)
    adapted = adapt(model, base, x, targets=pattern)
    variables = with_adapters(adapted, base)
    run = jax.jit(lambda v, task: adapted.apply(v, x, task_id=task))
    first, other, again = (np.asarray(run(variables, jnp.int32(task))) for task in (0, 1, 0))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_whole_spec_tree_of_an_adapted_scan():
    model, x, pattern, _ = MODELS["scan"]
    base = base_variables(model, x)
    adapted = adapt(model, base, x, targets=pattern, heads="Dense_0/bias")
    trees = with_adapters(adapted, base, 5)
    assert shapes(trees["shared"]) == {
        "layers/Dense_0/lora_a": (3, 7, 4),  # the outer layer is made first
        "layers/Dense_1/lora_a": (3, 6, 4),
        "Dense_0/lora_a": (6, 4),
    }
    assert shapes(trees["tasks"]) == {
        "layers/Dense_0/lora_b": (5, 3, 4, 6),
        "layers/Dense_1/lora_b": (5, 3, 4, 7),
        "Dense_0/lora_b": (5, 4, 3),
        "Dense_0/bias": (5, 3),
    }
    counts = adapted.counts(base["params"], trees, tasks=5)
    assert counts.shared == 3 * (6 + 7) * 4 + 6 * 4
    assert counts.per_task == 3 * 4 * (7 + 6) + 4 * 3
    assert counts.heads_per_task == 3
    assert counts.base == 3 * (6 * 7 + 7 + 7 * 6 + 6) + 6 * 3
    assert counts.separate_per_task == 4 * (3 * (6 + 7 + 7 + 6) + 6 + 3)


def test_every_layer_of_a_scan_and_every_task_starts_from_a_draw_of_its_own():
    model, x, pattern, _ = MODELS["scan"]
    base = base_variables(model, x)
    adapted = adapt(model, base, x, targets=pattern, method=SeparateLoRA())
    fresh = jax.jit(lambda key: adapted.init(key, base["params"], 2))(jax.random.key(0))
    drawn = np.asarray(fresh["tasks"]["layers"]["Dense_0"]["lora_a"]).reshape(6, -1)
    correlation = np.corrcoef(drawn) - np.eye(6)
    assert np.abs(correlation).max() < 0.9


def test_extra_collections_mutable_state_kwargs_and_rngs_pass_through():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, scale, *, train: bool):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x))
            return scale * nn.Dropout(0.5, deterministic=not train)(x)

    model, x = Model(), SEQUENCE
    base = base_variables(model, x, scale=2.0, train=False)
    base["batch_stats"] = jax.tree.map(jnp.abs, base["batch_stats"])
    activation, parameter = (
        adapt(model, base, x, scale=2.0, train=False, targets=ALL, space=space) for space in ("activation", "parameter")
    )
    variables = with_adapters(activation, base)
    options = {"scale": 2.0, "train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(3)}}
    (y, state), (want, want_state) = (a.apply(variables, x, task_id=1, **options) for a in (activation, parameter))
    np.testing.assert_allclose(y, want, **CLOSE)
    assert set(state) == {"batch_stats"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), dict(state), dict(want_state))
    adapted_again = adapt(model, base, x, targets=ALL, **options)
    assert adapted_again.targets == activation.targets


def test_a_frozen_dict_and_abstract_inputs_are_taken():
    from flax.core import freeze

    model, x = Twice(), SEQUENCE
    base = base_variables(model, x)
    plain = adapt(model, base, jax.ShapeDtypeStruct(x.shape, x.dtype), targets=ALL)
    frozen = adapt(model, freeze(base), x, targets=ALL)
    assert plain.targets == frozen.targets
    variables = with_adapters(plain, base)
    got = frozen.apply(freeze(variables), x, task_id=1)
    np.testing.assert_allclose(got, plain.apply(variables, x, task_id=1), **CLOSE)


@pytest.mark.parametrize("space", ["activation", "parameter"])
def test_a_bf16_model_keeps_its_output_dtype(space):
    class Half(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(9, 6, dtype=jnp.bfloat16)(tokens)
            x = nn.Conv(6, (3,), dtype=jnp.bfloat16)(x)
            return nn.DenseGeneral((2, 3), dtype=jnp.bfloat16)(nn.Dense(6, dtype=jnp.bfloat16)(x))

    base = base_variables(Half(), TOKENS)
    adapted = adapt(Half(), base, TOKENS, targets=ALL, space=space)
    variables = with_adapters(adapted, base)
    assert jax.eval_shape(lambda v: adapted.apply(v, TOKENS, task_id=0), variables).dtype == jnp.bfloat16


def test_effective_params_are_an_ordinary_tree_that_answers_as_the_task():
    model, x, pattern, _ = MODELS["attention"]
    base = base_variables(model, x)
    adapted = adapt(model, base, x, targets=pattern, heads=r".*/out/bias")
    variables = with_adapters(adapted, base)
    params = adapted.effective_params(variables, 2)
    assert jax.tree.structure(params) == jax.tree.structure(base["params"])
    want = merged_params(variables, 2, 2.0, adapted.heads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), params, want)
    answer = jax.jit(lambda v: adapted.apply(v, x, task_id=2))(variables)
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x), answer, **CLOSE)


def test_unused_slots_have_exactly_zero_gradients_in_both_spaces():
    model, x, pattern, _ = MODELS["two_blocks"]
    base = base_variables(model, x)
    for adapted in both(model, base, x, pattern, METHODS[1]):
        variables = with_adapters(adapted, base)

        def loss(tasks, a=adapted, v=variables):
            return jnp.sum(a.apply({**v, "tasks": tasks}, x, task_id=jnp.int32(1)) ** 2)

        for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["tasks"])):
            assert not np.asarray(leaf)[[0, 2]].any()
            assert np.asarray(leaf)[1].any()
