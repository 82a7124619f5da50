"""What stands above the seam takes an adapted NNX module unchanged: checkpoints, PEFT, Share, meshes, routers, Linen's
own banks.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_models import CLOSE, drawn, with_tasks

import share_jax
from share_jax.ops.remat_policy import Remat
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape

X = drawn(4, 8)
BATCHES = [{"inputs": X, "labels": np.array([0, 1, 2, 0])}] * 6


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = x + jax.nn.tanh(layer(x))
        return self.head(x)


def learner_of(method, kind=share_jax.Learner, **options):
    model = Net(nnx.Rngs(0))
    adapted = share_jax.adapt(model, X, targets="layers/.*/kernel", heads="head/.*", method=method)
    return kind(adapted, adapted.variables(model), optax.adam(1e-2), **options)


def fresh(learner):
    return learner.start(learner.model.init(jax.random.key(0), learner.base["params"], 1))


@pytest.fixture(scope="module")
def learnt():
    learner = learner_of(share_jax.SharedA(rank=2))
    bank = learner.learn(fresh(learner), "a", BATCHES)
    return learner, learner.learn(bank, "b", BATCHES)


def test_a_saved_bank_comes_back_with_its_bits_and_is_one_models(learnt, tmp_path):
    learner, bank = learnt
    share_jax.save_bank(tmp_path / "bank", learner, bank)
    back = share_jax.load_bank(tmp_path / "bank", learner, fresh(learner))
    assert back.names == ("a", "b")
    for name in back.names:
        np.testing.assert_array_equal(learner.predict(back, name, X), learner.predict(bank, name, X))


def test_a_task_goes_out_as_peft_and_comes_back(learnt, tmp_path):
    learner, bank = learnt
    folders = share_jax.export_peft(bank, learner.model, tmp_path)
    assert sorted(folders) == ["a", "b"]
    again = share_jax.import_peft(list(folders.values()), learner.model, fresh(learner))
    back = again if hasattr(again, "names") else again[0]
    np.testing.assert_allclose(learner.predict(back, "b", X), learner.predict(bank, "b", X), **CLOSE)


def test_a_share_learner_evolves_one_subspace():
    learner = learner_of(share_jax.Share(4, 2), share_jax.ShareLearner)
    bank = learner.learn(fresh(learner), "a", BATCHES)
    before = learner.predict(bank, "a", X)
    bank = learner.learn(bank, "b", BATCHES)
    assert np.abs(learner.predict(bank, "a", X) - before).max() < 0.5
    assert learner.predict(bank, ["a", "b", "a", "b"], X).shape == (4, 3)


def test_a_mesh_and_remat_give_the_same_bank(learnt):
    learner, bank = learnt
    layout = layout_of(make_mesh(MeshShape(2, 2, 2)), learner.base["params"], learner.model)
    other = learner_of(share_jax.SharedA(rank=2), layout=layout, remat=Remat())
    placed = other.learn(fresh(other), "a", BATCHES)
    np.testing.assert_allclose(other.predict(placed, "a", X), learner.predict(bank, "a", X), **CLOSE)
    mixed = other.predict(placed, ["a"] * 3, X[:3])
    np.testing.assert_allclose(mixed, learner.predict(bank, "a", X)[:3], **CLOSE)


def test_a_router_chooses_the_tasks_of_a_batch(learnt):
    learner, bank = learnt
    router = share_jax.empty_router(8)
    rng = np.random.default_rng(0)
    for name, centre in (("a", -3.0), ("b", 3.0)):
        router = share_jax.add_task(router, name, rng.standard_normal((20, 8)) + centre)
    ids = share_jax.route(
        share_jax.routing_rule(router, bank.names), jnp.stack([X[0] - 3, X[1] + 3, X[2] - 3, X[3] + 3])
    )
    assert np.asarray(ids).tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(learner.predict(bank, ids, X)[1], learner.predict(bank, "b", X)[1], **CLOSE)


def test_blocks_of_remat_are_refused_with_what_to_do():
    with pytest.raises(share_jax.errors.TargetError, match=r"nnx\.remat"):
        learner_of(share_jax.SharedA(rank=2), remat=Remat(blocks=("layers/.*",)))


class LinenBlock(nn.Module):
    """A decoder's block in Linen; its twin in NNX is `NnxBlock`."""

    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        y = nn.LayerNorm(name="norm", use_bias=False)(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(y, mask=mask)
        return x + nn.Dense(8, name="down")(nn.gelu(nn.Dense(16, name="up")(x)))


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(8, use_bias=False, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x), mask=nnx.make_causal_mask(jnp.ones(x.shape[:2])))
        return x + self.down(jax.nn.gelu(self.up(x)))


def test_one_bank_gives_equal_outputs_in_linen_and_in_nnx():
    x, ids = drawn(4, 5, 8), np.array([2, 0, 1, 1])
    module, model = LinenBlock(), NnxBlock(nnx.Rngs(0))
    options = {"targets": ".*/kernel", "method": share_jax.SharedA(rank=2)}
    ours = share_jax.adapt(model, x, **options)
    variables = with_tasks(ours, ours.variables(model))
    theirs = share_jax.adapt(module, {"params": variables["params"]}, x, **options)
    assert [(t.path, t.d_in, t.d_out) for t in theirs.targets] == [(t.path, t.d_in, t.d_out) for t in ours.targets]
    for task_id in (1, ids):
        outs = [jax.jit(partial(adapted.apply, variables, x))(task_id=task_id) for adapted in (ours, theirs)]
        np.testing.assert_allclose(*outs, rtol=1e-5, atol=1e-5)
