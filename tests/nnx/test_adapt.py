"""An unmodified NNX module, adapted: against its effective parameters, by Learner, in mixed batches."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import config, nnx
from nnx_models import CLOSE, IDS, MIXED, Classifier, Layers, Tied, drawn, with_tasks

import share_jax
from share_jax.errors import InputError, TargetError
from share_jax.trees import shapes


@contextmanager
def graph_modes(graph, updates):
    before = {name: getattr(config, name) for name in ("nnx_graph_mode", "nnx_graph_updates")}
    config.update("nnx_graph_mode", graph), config.update("nnx_graph_updates", updates)
    try:
        yield
    finally:
        for name, value in before.items():
            config.update(name, value)


def effective_run(adapted, x):
    """(variables, task) to the ordinary module's output on the task's effective parameters."""

    @jax.jit
    def run(variables, task):
        return adapted.model.apply({**variables, "params": adapted.effective_params(variables, task)}, x)

    return run


METHOD = share_jax.SharedA(rank=2)
KERNELS = ["embed/embedding", "blocks/.*/kernel", "scaled/w", "window/kernel"]


@pytest.fixture(scope="module")
def model():
    return Classifier(nnx.Rngs(0), dropout=0.5)


@pytest.fixture(scope="module")
def adapted(model):
    return share_jax.adapt(model, IDS, targets=KERNELS, heads="head/.*", method=METHOD)


@pytest.fixture(scope="module")
def learnt(model, adapted):
    base = adapted.variables(model)
    learner = share_jax.Learner(adapted, base, optax.adam(2e-2))
    batches = [{"inputs": IDS, "labels": np.array([0, 1, 2, 0])}] * 8
    one = learner.learn(learner.start(adapted.init(jax.random.key(0), base["params"], 1)), "a", batches)
    return learner, one, learner.learn(one, "b", [{**batch, "labels": np.array([2, 2, 1, 1])} for batch in batches])


def test_what_matched_is_printed_with_the_models_own_paths(adapted):
    assert str(adapted) == (
        "SharedA(rank=2, alpha=8.0, init_std=0.02) in activation space on 9 kernels:\n"
        "blocks/0/attention/key/kernel    DenseGeneral  8 x 8\n"
        "blocks/0/attention/out/kernel    DenseGeneral  8 x 8\n"
        "blocks/0/attention/query/kernel  DenseGeneral  8 x 8\n"
        "blocks/0/attention/value/kernel  DenseGeneral  8 x 8\n"
        "blocks/0/ffn/0/kernel            Dense         8 x 12\n"
        "blocks/0/ffn/1/kernel            Dense         12 x 8\n"
        "embed/embedding                  Embed         10 x 8\n"
        "scaled/w                         DenseGeneral  8 x 8\n"
        "window/kernel                    Conv          24 x 8\n"
        "owned by each task: head/bias, head/kernel"
    )


def test_one_task_and_mixed_batches_equal_the_module_on_effective_parameters(model, adapted):
    variables = with_tasks(adapted, adapted.variables(model))
    run = jax.jit(lambda ids: adapted.apply(variables, IDS, task_id=ids))
    plain = jax.jit(lambda params: adapted.model.apply({**variables, "params": params}, IDS))
    wanted = [plain(adapted.effective_params(variables, task)) for task in range(3)]
    assert np.abs(np.asarray(wanted[0]) - wanted[1]).max() > 0.05
    np.testing.assert_allclose(run(2), wanted[2], **CLOSE)
    mixed = run(MIXED)
    for row, task in enumerate(MIXED):
        np.testing.assert_allclose(mixed[row], wanted[task][row], **CLOSE)
    before = run._cache_size()
    run(1), run(MIXED[::-1].copy())
    assert run._cache_size() == before


def test_the_module_stays_as_it_is_and_a_fresh_bank_gives_its_output(model, adapted):
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    variables = {**adapted.variables(model), **adapted.init(jax.random.key(0), adapted.variables(model)["params"], 2)}
    out = jax.jit(lambda: adapted.apply(variables, IDS, task_id=1))()
    jax.eval_shape(lambda: adapted.apply(variables, IDS, task_id=1, rngs=jax.random.key(3)))
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))), before)
    assert type(model) is Classifier
    assert model.blocks[0].dropout.deterministic is False
    quiet = nnx.clone(model)
    quiet.eval()
    np.testing.assert_allclose(out, nnx.jit(quiet)(IDS), **CLOSE)


def test_a_learner_keeps_the_first_tasks_bits_and_mixes_tasks(learnt):
    learner, one, two = learnt
    first = learner.predict(one, "a", IDS)
    np.testing.assert_array_equal(learner.predict(two, "a", IDS), first)
    assert np.argmax(first, -1).tolist() == [0, 1, 2, 0]
    mixed = learner.predict(two, ["b", "a", "b", "a"], IDS)
    np.testing.assert_allclose(mixed[1::2], first[1::2], **CLOSE)
    np.testing.assert_allclose(mixed[::2], learner.predict(two, "b", IDS)[::2], **CLOSE)


def test_dropout_follows_the_key_and_batch_statistics_stay(model, adapted):
    base = adapted.variables(model)
    variables = {**base, **adapted.init(jax.random.key(0), base["params"], 1)}
    run = jax.jit(lambda seed: adapted.apply(variables, IDS, task_id=0, rngs=jax.random.key(seed)))
    one, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    shifted = {**base["state"]["blocks"]["0"]["norm"], "mean": jnp.full(8, 3.0)}
    state = {**base["state"], "blocks": {"0": {**base["state"]["blocks"]["0"], "norm": shifted}}}
    moved = jax.jit(lambda: adapted.apply({**variables, "state": state}, IDS, task_id=0, rngs=jax.random.key(0)))()
    assert np.abs(moved - one).max() > 1e-3  # the stored statistics are what training reads


def test_shapes_are_enough_to_adapt(model, adapted):
    abstract = nnx.eval_shape(lambda: Classifier(nnx.Rngs(0), dropout=0.5))
    options = {"targets": KERNELS, "heads": "head/.*", "method": METHOD}
    other = share_jax.adapt(abstract, jax.ShapeDtypeStruct(IDS.shape, jnp.int32), **options)
    assert other.targets == adapted.targets
    assert shapes(other.variables(model)["params"]) == shapes(adapted.variables(abstract)["params"])


def test_a_tied_table_and_a_kernel_of_two_layers_are_adapted_once():
    model = Tied(nnx.Rngs(0))
    adapted = share_jax.adapt(model, IDS, targets=".*", method=METHOD)
    assert [target.path for target in adapted.targets] == ["again/kernel", "embed/embedding"]
    variables = with_tasks(adapted, adapted.variables(model))
    effective = effective_run(adapted, IDS)
    mixed = jax.jit(lambda: adapted.apply(variables, IDS, task_id=MIXED))()
    for row, task in enumerate(MIXED):
        plain = effective(variables, task)
        np.testing.assert_allclose(mixed[row], plain[row], **CLOSE)


@pytest.mark.parametrize("layers", [3, 8])
def test_scanned_layers_have_the_task_axis_behind_theirs_also_where_numbers_coincide(layers):
    model, x = Layers(nnx.Rngs(0), layers), drawn(4, 8)
    adapted = share_jax.adapt(model, x, targets=".*/kernel", method=METHOD)
    base = adapted.variables(model)
    assert adapted.init(jax.random.key(0), base["params"], 5)["tasks"]["layers"]["lora_b"].shape == (5, layers, 2, 8)
    variables = with_tasks(adapted, base)
    effective = effective_run(adapted, x)
    mixed = jax.jit(lambda: adapted.apply(variables, x, task_id=MIXED))()
    for row, task in enumerate(MIXED):
        plain = effective(variables, task)
        np.testing.assert_allclose(mixed[row], plain[row], **CLOSE)


@pytest.fixture(scope="module")
def whole_mode(model, adapted):
    variables = with_tasks(adapted, adapted.variables(model))
    return jax.jit(lambda: adapted.apply(variables, IDS, task_id=MIXED))()


@pytest.mark.parametrize(("graph", "updates"), [(False, False), (True, False), (False, True)])
def test_it_works_whatever_the_graph_modes(graph, updates, model, adapted, whole_mode):
    with graph_modes(graph, updates):
        again = share_jax.adapt(model, IDS, targets=KERNELS, heads="head/.*", method=METHOD)
        assert again.targets == adapted.targets
        variables = with_tasks(again, again.variables(model))
        out = jax.jit(lambda: again.apply(variables, IDS, task_id=MIXED))()
        np.testing.assert_allclose(out, whole_mode, **CLOSE)


def test_a_cache_that_the_module_writes_comes_back_and_serves_a_mixed_batch():
    model = nnx.MultiHeadAttention(2, 8, decode=True, rngs=nnx.Rngs(0))
    model.init_cache((4, 5, 8))
    adapted = share_jax.adapt(model, jnp.zeros((4, 1, 8)), targets=".*/kernel", method=METHOD)
    variables, x = with_tasks(adapted, adapted.variables(model)), drawn(4, 5, 8)

    @jax.jit
    def decode(state, token, ids):
        out, after = adapted.apply({**variables, "state": state}, token, task_id=ids, mutable=True)
        return out, after["state"]

    for row, task in enumerate(MIXED):
        alone, together = variables["state"], variables["state"]
        for at in range(2):
            one, alone = decode(alone, x[:, at : at + 1], task)
            mixed, together = decode(together, x[:, at : at + 1], MIXED)
            np.testing.assert_allclose(mixed[row], one[row], **CLOSE)
    assert int(together["cache_index"]) == 2


def test_what_is_no_module_is_refused_with_what_to_do(model):
    graph, state = nnx.split(model)
    for wrong, fix in ((graph, "merge"), (state, "pass the module"), (None, "adapt_function"), (Classifier, "class")):
        with pytest.raises(InputError, match=fix) as told:
            share_jax.adapt(wrong, IDS, targets=".*")
        assert "\n" not in str(told.value)
    with pytest.raises(TargetError, match="near matches"):
        share_jax.adapt(model, IDS, targets="blocks/0/attention/kernel")
    with pytest.raises(TargetError, match="example call"):
        share_jax.adapt(model, IDS, IDS, targets=KERNELS)
    with pytest.raises(TargetError, match="near matches"):
        share_jax.adapt(model, IDS, targets="blocks/0/attention/query/bias")
    other = share_jax.adapt(model, IDS, targets="head/kernel")
    with pytest.raises(InputError, match="differs at"):
        other.variables(Classifier(nnx.Rngs(0), blocks=2))
