"""Any function of parameters, adapted where its traced program uses them, against its effective parameters."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import share_jax
from share_jax.errors import InputError, TargetError
from share_jax.trees import flat, nested

IDS = np.array([[1, 2, 3, 0], [4, 5, 6, 8], [7, 8, 0, 1], [3, 3, 2, 2]])
MIXED = np.array([2, 0, 1, 1])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def drawn(*shape, seed=0):
    return jnp.asarray(0.3 * np.random.default_rng((seed, *shape)).standard_normal(shape), jnp.float32)


def language_model(params, ids, mask):
    """A table that is tied to the output, one for positions, einsum layers, a scan of two kernels, a convolution."""
    x = params["table"][ids] + params["positions"][jnp.arange(ids.shape[1])][None]
    heads = jnp.einsum("btd,ndh->btnh", x, params["query"])
    x = x + jnp.einsum("btnh,nhd->btd", heads, params["out"]) * mask[..., None]

    def block(x, own):
        return x + jax.nn.relu(x @ own["up"]) @ own["down"], None

    x, _ = jax.lax.scan(jax.checkpoint(block), x, params["blocks"])
    numbers = ("NWC", "WIO", "NWC")
    x = x + jax.lax.conv_general_dilated(x, params["window"], (1,), "SAME", dimension_numbers=numbers)
    return (x @ params["table"].T).mean(1) @ params["head"]


PARAMS = {
    "table": drawn(9, 6),
    "positions": drawn(4, 6),
    "query": drawn(2, 6, 3),
    "out": drawn(2, 3, 6),
    "blocks": {"up": drawn(4, 6, 8), "down": drawn(4, 8, 6)},
    "window": drawn(3, 6, 6),
    "head": drawn(9, 3),
}
INPUTS = {"ids": IDS, "mask": np.ones((4, 4), np.float32)}
ALL = ["table", "positions", "query", "out", "blocks/.*", "window"]


@cache
def adapted_in(space, method=None):
    method = method or share_jax.SharedA(rank=2)
    options = {"targets": ALL, "heads": "head", "space": space, "method": method}
    return share_jax.adapt_function(language_model, PARAMS, **INPUTS, **options)


def with_tasks(adapted, params, tasks=3):
    """Trees whose every leaf is drawn, so that nothing hides behind a zero."""
    shapes = jax.eval_shape(partial(adapted.init, num_tasks=tasks), jax.random.key(0), params)
    drawn_at = {path: drawn(*leaf.shape, seed=i) for i, (path, leaf) in enumerate(flat(shapes).items())}
    return {"params": params, "shared": {}, **nested(drawn_at)}


@pytest.fixture(scope="module")
def full():
    return with_tasks(adapted_in("activation"), PARAMS)


def test_the_program_says_which_axes_of_a_kernel_are_inputs():
    rows = {
        target.path: (target.layer, target.d_in, target.d_out, target.stacked)
        for target in adapted_in("activation").targets
    }
    assert rows == {
        "table": ("Embed", 9, 6, None),
        "positions": ("Embed", 4, 6, None),
        "query": ("DenseGeneral", 6, 6, None),
        "out": ("DenseGeneral", 6, 6, None),
        "blocks/up": ("Dense", 6, 8, 4),
        "blocks/down": ("Dense", 8, 6, 4),
        "window": ("Conv", 18, 6, None),
    }


@pytest.mark.parametrize("method", [share_jax.SharedA(rank=2), share_jax.SeparateLoRA(rank=2), share_jax.Share(3, 2)])
def test_one_task_and_a_mixed_batch_equal_the_function_on_effective_parameters(method):
    adapted = adapted_in("activation", method)
    variables = with_tasks(adapted, PARAMS)
    run = jax.jit(lambda ids: adapted.apply(variables, **INPUTS, task_id=ids))
    plain = jax.jit(language_model)
    wanted = [plain(adapted.effective_params(variables, task), **INPUTS) for task in range(3)]
    assert np.abs(np.asarray(wanted[0]) - wanted[1]).max() > 0.1
    np.testing.assert_allclose(run(1), wanted[1], **CLOSE)
    mixed = run(MIXED)
    for row, task in enumerate(MIXED):
        np.testing.assert_allclose(mixed[row], wanted[task][row], **CLOSE)


def test_both_spaces_agree_and_fresh_trees_change_nothing(full):
    there, here = adapted_in("parameter"), adapted_in("activation")

    def answer(adapted, variables, task_id):
        return jax.jit(lambda variables: adapted.apply(variables, **INPUTS, task_id=task_id))(variables)

    np.testing.assert_allclose(answer(there, full, 2), answer(here, full, 2), **CLOSE)
    fresh = {"params": PARAMS, **here.init(jax.random.key(0), PARAMS, 2)}
    np.testing.assert_allclose(answer(here, fresh, 1), jax.jit(language_model)(PARAMS, **INPUTS), **CLOSE)


def test_a_learner_learns_two_tasks_and_the_first_keeps_its_bits():
    adapted = adapted_in("activation")
    learner = share_jax.Learner(adapted, adapted.variables(PARAMS), optax.adam(3e-2))
    batches = [{"inputs": INPUTS, "labels": np.array([0, 1, 2, 0])}] * 12
    bank = learner.learn(learner.start(adapted.init(jax.random.key(0), PARAMS, 1)), "a", batches)
    first = learner.predict(bank, "a", INPUTS)
    bank = learner.learn(bank, "b", [{**batch, "labels": np.array([2, 2, 1, 1])} for batch in batches])
    np.testing.assert_array_equal(learner.predict(bank, "a", INPUTS), first)
    mixed = learner.predict(bank, ["a", "b", "b", "a"], INPUTS)
    np.testing.assert_allclose(mixed[::3], first[::3], **CLOSE)
    np.testing.assert_allclose(mixed[1:3], learner.predict(bank, "b", INPUTS)[1:3], **CLOSE)


def test_gradients_of_a_slot_are_those_through_the_effective_parameters(full):
    here, there = adapted_in("activation"), adapted_in("parameter")
    slot = jax.tree.map(lambda leaf: leaf[1], full["tasks"])

    def total(adapted, slot):
        return jnp.sin(adapted.apply_slot(full, slot, **INPUTS)).sum()

    ours, theirs = (jax.jit(jax.grad(partial(total, adapted)))(slot) for adapted in (here, there))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), ours, theirs)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda p, x: x @ jnp.tanh(p["w"]), "'tanh' reads"),
        (lambda p, x: x @ p["w"] + (p["w"] ** 2).sum(), "reads"),
        (lambda p, x: x @ p["w"] + x @ p["w"].T + p["w"][:1], "different axes|reads|two operations"),
        (lambda p, x: x @ p["w"][:, :6].reshape(6, 6) @ jnp.linalg.inv(p["w"]), "reads"),
        (lambda p, x: (x, p["w"]), "returns|not used|no product"),
        (lambda p, x: x, "does not reach"),
        (lambda p, x: x + p["w"][:1], "no product, convolution or lookup, .* by heads="),
        (lambda p, x: x[: int(x[0, 0])] @ p["w"], "traced array with shape .* as a flag, such as an int"),
        (lambda p, x: x @ p["i"].astype(jnp.float32), "dtype int8|reads"),
    ],
)
def test_what_activation_space_cannot_follow_is_refused_by_name(function, reason):
    params = {"w": drawn(6, 6), "i": jnp.ones((6, 6), jnp.int8)}
    target = "i" if "int8" in reason else "w"
    with pytest.raises(TargetError, match=reason) as told:
        share_jax.adapt_function(function, params, drawn(2, 6), targets=target)
    assert "\n" not in str(told.value)


def test_whole_numbers_are_refused_in_parameter_space_too():
    params = {"i": jnp.ones((6, 6), jnp.int8)}
    with pytest.raises(TargetError, match="int8 codes"):
        share_jax.adapt_function(
            lambda p, x: x @ p["i"].astype(jnp.float32), params, drawn(2, 6), targets="i", space="parameter"
        )


def looped(params, x):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, jnp.moveaxis(params["w"], 1, 0))[0]


def indexed(params, x):
    return jnp.tanh(x @ params["w"][:, 3]) @ params["w"][:, 1] + x @ params["w"][:, 0]


@pytest.mark.parametrize("function", [looped, indexed])
def test_layers_on_another_axis_have_leaves_of_their_own_where_the_lengths_coincide_too(function):
    for layers in (4, 6):
        params, x = {"w": drawn(6, layers, 6)}, drawn(4, 6)
        here, there = (
            share_jax.adapt_function(function, params, x, targets="w", space=space)
            for space in ("activation", "parameter")
        )
        assert here.targets == there.targets
        full = with_tasks(here, params)
        wanted = [function(here.effective_params(full, task), x) for task in range(3)]
        assert np.abs(np.asarray(wanted[0]) - wanted[1]).max() > 0.05
        for task in range(3):
            np.testing.assert_allclose(here.apply(full, x, task_id=task), wanted[task], **CLOSE)
        mixed = [wanted[task][row] for row, task in enumerate(MIXED)]
        np.testing.assert_allclose(here.apply(full, x, task_id=MIXED), mixed, **CLOSE)


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: x @ p["w"][:, 0] + x.sum(-1),
        lambda p, x: x @ p["w"] + p["w"][:1],
        lambda p, x: x @ p["w"] + x @ p["w"][:, :1],
    ],
)
def test_a_part_of_a_kernel_that_is_no_layer_is_refused(function):
    with pytest.raises(TargetError, match=r"a product with a vector|'add' reads|'slice' reads"):
        share_jax.adapt_function(function, {"w": drawn(6, 6)}, drawn(2, 6), targets="w")


def time_major(params, x):
    return jnp.swapaxes(jnp.swapaxes(x, 0, 1) @ params["w"], 0, 1) + params["bias"][jnp.arange(x.shape[1])][None]


def test_a_layer_that_does_not_see_the_batch_first_gives_each_example_its_own_task():
    params = {"w": drawn(6, 6), "bias": drawn(9, 6)}
    x = drawn(4, 4, 6, seed=3)  # as long as the batch: nothing but the trace can tell them apart
    adapted = share_jax.adapt_function(time_major, params, x, targets=["w", "bias"])
    variables = with_tasks(adapted, params)
    mixed = adapted.apply(variables, x, task_id=MIXED)
    for row, task in enumerate(MIXED):
        np.testing.assert_allclose(mixed[row], adapted.apply(variables, x, task_id=task)[row], **CLOSE)


def test_inputs_that_all_examples_share_are_named_and_mixed_outputs_refused():
    params = {"w": drawn(6, 6)}
    x, mask = drawn(4, 4, 6), jnp.tril(jnp.ones((4, 4)))

    def function(params, x, mask):
        return jnp.einsum("ts,bsd->btd", mask, x @ params["w"])

    for unbatched in (["mask"], ["1"]):
        adapted = share_jax.adapt_function(function, params, x, mask, targets="w", unbatched=unbatched)
        variables = with_tasks(adapted, params)
        inputs = ((x,), {"mask": mask}) if unbatched == ["mask"] else ((x, mask), {})
        mixed = adapted.apply(variables, *inputs[0], **inputs[1], task_id=MIXED)
        np.testing.assert_allclose(mixed[2], function(adapted.effective_params(variables, 1), x, mask)[2], **CLOSE)
    mean = share_jax.adapt_function(lambda p, x: (x @ p["w"]).mean(), params, x, targets="w")
    with pytest.raises(InputError, match="batch of different tasks"):
        mean.apply(with_tasks(mean, params), x, task_id=MIXED)
    with pytest.raises(InputError, match="got 3 ids"):
        adapted.apply(variables, x, mask, task_id=[0, 1, 2])


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: (x - x.mean(0, keepdims=True)) @ p["w"],
        lambda p, x: jnp.cumsum(x, axis=0) @ p["w"],
        lambda p, x: jnp.where(x.sum() > 0, x, -x) @ p["w"],
        lambda p, x: jax.nn.softmax(x @ x.T) @ x @ p["w"],
    ],
)
def test_examples_that_change_each_other_are_not_computed_each_by_itself(function):
    adapted, x = share_jax.adapt_function(function, {"w": drawn(6, 6)}, drawn(4, 6), targets="w"), drawn(4, 6)
    variables = with_tasks(adapted, {"w": drawn(6, 6)})
    assert adapted.apply(variables, x, task_id=1).shape == (4, 6)
    with pytest.raises(InputError, match="an example that others change"):
        adapted.apply(variables, x, task_id=MIXED)


def test_equinox_modules_are_adapted_as_they_are():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(6, 3, 8, 2, key=jax.random.key(0))

    def apply(model, x):
        return jax.vmap(model)(x)

    x = drawn(4, 6)
    adapted = share_jax.adapt_function(apply, model, x, targets=r"layers/[01]/weight", heads="layers/2/.*")
    assert [(t.d_in, t.d_out, t.shape) for t in adapted.targets] == [(6, 8, (8, 6)), (8, 8, (8, 8))]
    variables = with_tasks(adapted, adapted.variables(model)["params"])
    mixed = jax.jit(lambda ids: adapted.apply(variables, x, task_id=ids))(MIXED)
    for row, task in enumerate(MIXED):
        plain = adapted.model.apply({"params": adapted.effective_params(variables, task)}, x)
        np.testing.assert_allclose(mixed[row], plain[row], **CLOSE)
    learner = share_jax.Learner(adapted, adapted.variables(model), optax.adam(1e-2))
    fresh = adapted.init(jax.random.key(1), learner.base["params"], 1)
    bank = learner.learn(learner.start(fresh), "a", [{"inputs": x, "labels": np.arange(4) % 3}] * 5)
    assert np.abs(learner.predict(bank, "a", x) - np.asarray(apply(model, x))).max() > 1e-3
