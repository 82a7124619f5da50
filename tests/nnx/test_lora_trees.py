"""LoRA pairs of live models come in as tasks and go out: nnx.LoRA, nnx.LoRALinear, and leaves as qwix names them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_models import drawn

import share_jax
from share_jax.errors import InputError, TargetError, TaskError

EQUAL = {"rtol": 1e-6, "atol": 1e-6}
X = drawn(4, 8)


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
        self.heads = nnx.Einsum("bd,dnh->bnh", (8, 2, 3), (2, 3), rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = x + jax.nn.tanh(layer(x))
        return self.out(self.heads(x).reshape(x.shape[0], 6))


def with_lora(model, rngs):
    """A copy with LoRA of NNX in both of its forms, the factors drawn."""
    own = nnx.clone(model)
    linear = nnx.LoRALinear(8, 8, lora_rank=2, rngs=rngs)
    linear.kernel, linear.bias = own.layers[0].kernel, own.layers[0].bias
    own.layers[0] = linear
    own.layers[1] = nnx.LoRA(8, 3, 8, base_module=own.layers[1], rngs=rngs)
    for index, module in enumerate((own.layers[0].lora, own.layers[1])):
        module.lora_b.set_value(drawn(*module.lora_b.shape, seed=index))
    return own


def learner_of(model, targets, method, **options):
    adapted = share_jax.adapt(model, X, targets=targets, method=method, **options)
    learner = share_jax.Learner(adapted, adapted.variables(model), optax.adam(1e-2))
    return learner, learner.start(adapted.init(jax.random.key(0), learner.base["params"], 1))


@pytest.fixture(scope="module")
def model():
    return Plain(nnx.Rngs(0))


@pytest.fixture(scope="module")
def learnt(model):
    """Plain LoRA with room for both ranks, a task that was trained elsewhere, and one that is learnt here."""
    trained = with_lora(model, nnx.Rngs(1))
    method = share_jax.SeparateLoRA(rank=3, alpha=6.0)
    learner, empty = learner_of(model, "layers/.*/kernel", method, heads="out/.*")
    bank, reports = share_jax.nnx.import_lora(trained, learner.model, empty, "theirs")
    assert reports["theirs"].relative_change < 1e-6
    return learner, trained, learner.learn(bank, "ours", [{"inputs": X, "labels": np.array([0, 1, 2, 0])}] * 3)


def test_a_task_of_nnx_lora_comes_in_and_keeps_its_output_beside_what_is_learnt_after_it(learnt):
    learner, trained, bank = learnt
    assert bank.names == ("theirs", "ours")
    np.testing.assert_allclose(learner.predict(bank, "theirs", X), trained(X), **EQUAL)


def test_a_learnt_task_goes_out_into_nnx_lora_and_pairs_of_no_target_are_zero(learnt, model):
    learner, _, bank = learnt
    shaped = with_lora(model, nnx.Rngs(2))
    shaped.layers[0] = nnx.LoRA(8, 3, 8, base_module=nnx.clone(model.layers[0]), rngs=nnx.Rngs(3))
    shaped.heads = nnx.LoRA(8, 1, 6, base_module=shaped.heads, rngs=nnx.Rngs(4))
    shaped.heads.lora_b.set_value(jnp.ones((1, 6)))
    before = nnx.to_pure_dict(nnx.state(shaped, nnx.Param))
    out = share_jax.nnx.export_lora(bank, learner.model, "ours", shaped)
    assert np.all(np.asarray(out.heads.lora_b[...]) == 0)
    out.heads = out.heads.base_module  # a pair of zeros beside an einsum of another shape
    np.testing.assert_allclose(out(X), learner.predict(bank, "ours", X), **EQUAL)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(shaped, nnx.Param)), before)


def test_a_smaller_pair_than_the_task_is_refused(learnt):
    learner, trained, bank = learnt
    with pytest.raises(TargetError, match="rank of pair layers/0/lora/lora_a: got 2, expected at least"):
        share_jax.nnx.export_lora(bank, learner.model, "ours", trained)


def qwix_leaves(rank=2):
    """As qwix lays them out: contracted axes in front of the rank, kept ones behind it."""
    shapes = {"layers": {0: {"kernel": ((8,), (8,))}}, "heads": {"kernel": ((8,), (2, 3))}}

    def pair(sides, seed):
        a, b = sides
        return {"kernel_lora_a": drawn(*a, rank, seed=seed), "kernel_lora_b": drawn(rank, *b, seed=seed + 1)}

    return {"layers": {0: pair(shapes["layers"][0]["kernel"], 3)}, "heads": pair(shapes["heads"]["kernel"], 5)}


@pytest.mark.parametrize("kind", ["dicts", "state"])
def test_leaves_of_qwix_come_in_with_their_alpha_and_go_out_with_their_bits(kind, model):
    method = share_jax.SharedA(rank=2, alpha=8.0)
    learner, empty = learner_of(model, ["layers/0/kernel", "heads/kernel"], method)
    dicts = qwix_leaves()
    tree = dicts if kind == "dicts" else nnx.State(jax.tree.map(nnx.LoRAParam, dicts))
    bank, _ = share_jax.nnx.import_lora(tree, learner.model, empty, "theirs", alpha=8.0)
    params = {**learner.model.effective_params({**learner.base, "shared": bank.shared, "tasks": bank.tasks}, 0)}
    for place, kernel, shape in (
        (dicts["layers"][0], lambda tree: tree["layers"]["0"]["kernel"], (8, 8)),
        (dicts["heads"], lambda tree: tree["heads"]["kernel"], (8, 2, 3)),
    ):
        update = np.tensordot(place["kernel_lora_a"], place["kernel_lora_b"], 1).reshape(shape) * 4
        np.testing.assert_allclose(kernel(params) - kernel(learner.base["params"]), update, **EQUAL)
    back = share_jax.nnx.export_lora(bank, learner.model, "theirs", tree, alpha=8.0)
    flat_back, flat_tree = jax.tree.leaves(back), jax.tree.leaves(tree)
    assert [leaf.shape for leaf in flat_back] == [leaf.shape for leaf in flat_tree]
    jax.tree.map(np.testing.assert_array_equal, flat_back, flat_tree)
    other = share_jax.nnx.export_lora(bank, learner.model, "theirs", qwix_leaves(3), alpha=3.0)  # another rule
    pair = other["layers"][0]
    again = np.asarray(pair["kernel_lora_a"]) @ np.asarray(pair["kernel_lora_b"])
    np.testing.assert_allclose(
        again, 4 * np.asarray(dicts["layers"][0]["kernel_lora_a"]) @ np.asarray(dicts["layers"][0]["kernel_lora_b"]),
        **EQUAL,
    )  # fmt: skip


class Stacked(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs):
            return nnx.Linear(8, 8, rngs=rngs)

        self.layers = make(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(layer, x):
            return x + jax.nn.tanh(layer(x))

        return run(self.layers, x)


def test_scanned_layers_have_their_axis_in_front():
    model = Stacked(nnx.Rngs(0))
    learner, empty = learner_of(model, "layers/kernel", share_jax.SeparateLoRA(rank=3, alpha=6.0))
    tree = {"layers": {"kernel_lora_a": drawn(3, 8, 3), "kernel_lora_b": drawn(3, 3, 8)}}
    bank, _ = share_jax.nnx.import_lora(tree, learner.model, empty, "theirs", alpha=6.0)
    params = learner.model.effective_params({**learner.base, "shared": bank.shared, "tasks": bank.tasks}, 0)
    update = params["layers"]["kernel"] - learner.base["params"]["layers"]["kernel"]
    np.testing.assert_allclose(
        update, 2 * np.einsum("lir,lro->lio", tree["layers"]["kernel_lora_a"], tree["layers"]["kernel_lora_b"]), **EQUAL
    )
    back = share_jax.nnx.export_lora(bank, learner.model, "theirs", tree, alpha=6.0)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_what_does_not_fit_is_refused_in_one_line(learnt, model):
    learner, trained, bank = learnt
    other, empty = learner_of(model, ["layers/0/kernel", "heads/kernel"], share_jax.SharedA(rank=2))
    pairs = qwix_leaves()
    half = {"layers": {0: {"kernel_lora_a": pairs["layers"][0]["kernel_lora_a"]}}}
    unscaled = {"layers": {0: {"lora_a": drawn(8, 2), "lora_b": drawn(2, 8)}}}
    wide = {"layers": {0: {"kernel_lora_a": drawn(9, 2), "kernel_lora_b": drawn(2, 8)}}}
    cases = [
        (InputError, "scale of alpha / rank.*pass alpha=", pairs, {}),
        (InputError, "alpha: got 8.*leave it out", unscaled, {"alpha": 8}),
        (TargetError, "pair of layers/1: got no target", trained, {}),
        (TargetError, "got layers/0/kernel_lora_a, expected lora_a and lora_b", half, {"alpha": 8}),
        (TargetError, r"got \(9, 2\) and \(2, 8\)", wide, {"alpha": 8}),
        (InputError, "Plain: got no LoRA pairs", model, {}),
        (InputError, "got list, expected an nnx.Module", [], {}),
        *((InputError, "alpha: got", pairs, {"alpha": alpha}) for alpha in (0, float("nan"), 1e-40, "8")),
    ]  # fmt: skip
    for kind, words, tree, options in cases:
        with pytest.raises(kind, match=words) as told:
            share_jax.nnx.import_lora(tree, other.model, empty, "theirs", **options)
        assert "\n" not in str(told.value)
    with pytest.raises(TargetError, match="target layers/1/kernel: got no pair"):
        share_jax.nnx.export_lora(bank, learner.model, "ours", wide, alpha=8)
    with pytest.raises(TaskError):
        share_jax.nnx.export_lora(bank, learner.model, "nobody", trained)
    with pytest.raises(TaskError, match="theirs"):
        share_jax.nnx.import_lora(trained, learner.model, bank, "theirs")


def test_a_chosen_task_is_a_module_again(learnt, model):
    learner, _, bank = learnt
    chosen = share_jax.nnx.ChosenTask(learner.model, model, bank, "ours")
    run = nnx.jit(lambda module, x: module(x))
    np.testing.assert_allclose(run(chosen, X), learner.predict(bank, "ours", X), **EQUAL)
    ids = ["ours", "theirs", "theirs", "ours"]
    mixed = run(share_jax.nnx.ChosenTask(learner.model, model, bank, ids), X)
    np.testing.assert_allclose(mixed, learner.predict(bank, ids, X), **EQUAL)
    assert chosen.layers is model.layers
    graph, state = nnx.split(chosen)
    again = nnx.merge(graph, state)
    again.task_id.set_value(jnp.int32(0))
    np.testing.assert_allclose(again(X), learner.predict(bank, "theirs", X), **EQUAL)
    with pytest.raises(TaskError):
        share_jax.nnx.ChosenTask(learner.model, model, bank, "nobody")
