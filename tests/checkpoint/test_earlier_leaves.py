"""Banks of kernels that a model takes apart by index, saved when such a kernel had one pair for all of it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.checkpoint.earlier_leaves import as_saved, as_today, earlier_leaves
from share_jax.errors import FormatError
from share_jax.layers.effective_params import effective_params
from share_jax.layers.targets import Target
from share_jax.trees import flat, nested

RNG = np.random.default_rng(0)
X = np.asarray(RNG.standard_normal((3, 4)), np.float32)
WHOLE = {"first": (2, 4, 4), "middle": (4, 2, 4), "two": (2, 2, 4, 4)}


def model(params, x):
    for w in (params["first"][0], params["first"][1], params["middle"][:, 0], params["middle"][:, 1]):
        x = jnp.tanh(x @ w)
    for i in range(4):
        x = jnp.tanh(x @ params["two"][i // 2, i % 2])
    return x


def columns(params, x):
    return (x @ params["w"][..., 0]) * (x @ params["w"][..., 1])


def bank_of(adapted, params):
    learner = share_jax.Learner(adapted, {"params": params}, optax.sgd(0.1))
    trees = jax.eval_shape(lambda: adapted.init(jax.random.key(0), params, 2))
    drawn = {
        path: jnp.asarray(0.3 * RNG.standard_normal(leaf.shape), jnp.float32) for path, leaf in flat(trees).items()
    }
    trees = {"shared": {}, **nested(drawn)}
    return learner, TaskBank(trees["shared"], trees["tasks"], ("one", "two"))


def as_it_was(adapted):
    """The same kernels, each one matrix whose columns are the last axis."""
    made = (Target(t.path, t.module_path, "parameter", WHOLE.get(t.path, (4, 4, 2)), -1, None) for t in adapted.targets)
    return replace(adapted, targets=tuple(replace(t, in_axes=len(t.shape) - 1) for t in made), space="parameter")


METHODS = [share_jax.SharedA(rank=2), share_jax.SeparateLoRA(rank=2), share_jax.Share(4, 2)]


@pytest.mark.parametrize("method", METHODS)
def test_each_index_gets_the_update_that_it_had(method):
    params = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in WHOLE.items()}
    adapted = share_jax.adapt_function(model, params, X, targets=".*", method=method, space="parameter")
    was = as_it_was(adapted)
    zeros = {path: np.zeros(leaf.shape, np.float32) for path, leaf in params.items()}
    shapes = [jax.eval_shape(lambda own=own: own.init(jax.random.key(0), params, 1)) for own in (was, adapted)]
    drawn = {path: RNG.standard_normal(leaf.shape).astype(np.float32) for path, leaf in flat(shapes[0]).items()}
    made = {"shared": {}, **nested(drawn)}
    saved = made["shared"], jax.tree.map(lambda leaf: leaf[0], made["tasks"])
    like = shapes[1].get("shared", {}), jax.tree.map(lambda leaf: leaf.update(shape=leaf.shape[1:]), shapes[1]["tasks"])
    today = []
    for tree, wanted in zip(saved, like, strict=True):
        record = {path: {"shape": list(leaf.shape)} for path, leaf in flat(tree).items()}
        earlier = earlier_leaves(method, adapted.targets, params, record, wanted)
        assert jax.tree.map(np.shape, as_saved(earlier, wanted)) == jax.tree.map(np.shape, tree)
        today.append(as_today(earlier, tree))
    want = effective_params(method, was.targets, zeros, *saved)
    got = effective_params(method, adapted.targets, zeros, *today)
    for path, update in want.items():
        np.testing.assert_allclose(got[path], update, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_bank_of_one_pair_for_all_indices_keeps_its_updates(tmp_path, method):
    params = {path: jnp.asarray(RNG.standard_normal(shape), jnp.float32) for path, shape in WHOLE.items()}
    adapted = share_jax.adapt_function(model, params, X, targets=".*", method=method, space="parameter")
    assert [target.stacked for target in adapted.targets] == [2, 2, 4]
    learner, bank = bank_of(as_it_was(adapted), params)
    share_jax.save_bank(tmp_path / "bank", learner, bank)
    want = learner.model.effective_params({"params": params, "shared": bank.shared, "tasks": bank.tasks}, 1)
    for space in ("parameter", "activation"):
        today = share_jax.Learner(replace(adapted, space=space), {"params": params}, optax.sgd(0.1))
        fresh = today.start(adapted.init(jax.random.key(0), params, 1))
        loaded = share_jax.load_bank(tmp_path / "bank", today, fresh)
        variables = {"params": params, "shared": loaded.shared, "tasks": loaded.tasks}
        got = adapted.effective_params(variables, 1)
        for path, kernel in want.items():
            np.testing.assert_allclose(got[path], kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(today.predict(loaded, "two", X), model(want, X), rtol=1e-4, atol=1e-5)


def test_a_bank_whose_columns_were_the_indices_is_refused_in_one_line(tmp_path):
    params = {"w": jnp.asarray(RNG.standard_normal((4, 4, 2)), jnp.float32)}
    adapted = share_jax.adapt_function(columns, params, X, targets="w", space="parameter")
    learner, bank = bank_of(as_it_was(adapted), params)
    share_jax.save_bank(tmp_path / "bank", learner, bank)
    today = share_jax.Learner(adapted, {"params": params}, optax.sgd(0.1))
    with pytest.raises(
        FormatError, match=r"leaf lora_b of task 'one': got \(\[4, 2\].*expected \(\[2, 4, 4\].*; use the"
    ):
        share_jax.load_bank(tmp_path / "bank", today, today.start(adapted.init(jax.random.key(0), params, 1)))
