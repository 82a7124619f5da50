"""A further LoRA variant is one class: it goes through adapting, learning, serving, meshes, files and counts as it is.

LoRA-FA (Zhang et al. 2023, arXiv 2308.03303, eq. 2): A is random and frozen from the start, B alone trains.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec as P

from share_jax import Learner, SharedA, SharedLoRADense, TaskHead, adapt, load_bank, save_bank
from share_jax.ops.mixed_batch import Kernel, mixed_kernel
from share_jax.parameterizations.base import LeafSpec
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape


@dataclass(frozen=True)
class LoRAFA(SharedA):
    """`SharedA` whose A is `frozen_a` and never trains."""

    name = "lora_fa"
    pair = ("frozen_a", "lora_b")

    def leaves(self, d_in, d_out):
        b = super().leaves(d_in, d_out)["lora_b"]
        return {"frozen_a": LeafSpec((d_in, self.rank), ("d_in", None), owner="shared", trains="never"), "lora_b": b}

    def init_shared(self, key, d_in, d_out):
        return {"frozen_a": super().init_shared(key, d_in, d_out)["lora_a"]}

    def down(self, shared, slot):
        return shared["frozen_a"]

    def factors(self, shared, slot):
        return shared["frozen_a"], self.scale * slot["lora_b"]


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(nn.gelu(nn.Dense(8, name="up")(x)))


X = jnp.asarray(np.random.default_rng(0).standard_normal((8, 6)), jnp.float32)
IDS = np.arange(8) % 2


@pytest.fixture(scope="module")
def learnt():
    base = Model().init(jax.random.key(0), X)
    adapted = adapt(Model(), base, X, targets="up/kernel", heads="head/.*", method=LoRAFA(rank=2))
    learner = Learner(adapted, base, optax.adamw(0.05))
    fresh = bank = learner.start(adapted.init(jax.random.key(1), base["params"], 1))
    for name, shift in (("first", 0), ("second", 1)):  # the stack grows for the second
        batch = {"inputs": X, "labels": (jnp.arange(8) + shift) % 3}
        bank = learner.learn(bank, name, [batch] * 10)
    return base, adapted, learner, fresh, bank


def test_a_never_trains_and_b_is_each_tasks_own(learnt):
    base, adapted, learner, fresh, bank = learnt
    assert jax.tree.map(np.array_equal, fresh.shared, bank.shared) == {"up": {"frozen_a": True}}
    assert np.abs(bank.tasks["up"]["lora_b"]).max() > 0
    merged = adapted.effective_params({**base, "shared": bank.shared, "tasks": bank.tasks}, 1)
    np.testing.assert_allclose(
        learner.predict(bank, "second", X), Model().apply({"params": merged}, X), rtol=1e-5, atol=1e-5
    )


def test_a_batch_of_different_tasks_takes_the_kernel_on_the_whole_stack(learnt):
    base, adapted, learner, _, bank = learnt
    want = learner.predict(bank, IDS, X)
    each = jnp.stack([learner.predict(bank, int(task), X)[row] for row, task in enumerate(IDS)])
    np.testing.assert_allclose(want, each, rtol=1e-5, atol=1e-5)
    variables = {**base, "shared": bank.shared, "tasks": bank.tasks}
    with mixed_kernel(Kernel(interpret=True)):
        run = jax.make_jaxpr(lambda tasks: adapted.apply({**variables, "tasks": tasks}, X, task_id=IDS))
        (call,) = [eqn for eqn in _equations(run(bank.tasks).jaxpr) if eqn.primitive.name == "pallas_call"]
        assert (bank.capacity, 2, 8) in [var.aval.shape for var in call.invars]
        np.testing.assert_allclose(adapted.apply(variables, X, task_id=IDS), want, rtol=1e-5, atol=1e-5)


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _equations(inner)


def test_it_is_sharded_saved_and_counted(learnt, tmp_path):
    base, adapted, learner, fresh, bank = learnt
    layout = layout_of(make_mesh(MeshShape(1, 2, jax.device_count() // 2)), base["params"], adapted)
    assert layout.shared(bank.shared)["up"]["frozen_a"].spec == P("fsdp", None)
    assert layout.slot(fresh.tasks)["up"]["lora_b"].spec == P(None, None, "tensor")
    save_bank(tmp_path, learner, bank)
    back = load_bank(tmp_path, learner, fresh)
    jax.tree.map(np.testing.assert_array_equal, (back.shared, back.tasks), (bank.shared, bank.tasks))
    counts = adapted.counts(base["params"], {"shared": bank.shared, "tasks": bank.tasks}, 2)
    assert (counts.shared, counts.per_task, counts.separate_per_task) == (6 * 2, 2 * 8, 2 * (6 + 8))


def test_a_layer_of_ones_own_takes_it_too():
    layer = SharedLoRADense(8, num_tasks=2, method=LoRAFA(rank=2))
    variables = layer.init(jax.random.key(0), X, 0)
    assert set(variables["shared"]) == {"frozen_a"}
    assert layer.apply(variables, X, IDS).shape == (8, 8)


class Own(nn.Module):
    """A module of one's own with a layer of the variant."""

    @nn.compact
    def __call__(self, x, task_id):
        hidden = SharedLoRADense(8, num_tasks=2, method=LoRAFA(rank=2), name="up")(x, task_id)
        return TaskHead(3, num_tasks=2)(nn.gelu(hidden), task_id)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_never_trains_in_a_module_of_ones_own_either(accumulate):
    variables = Own().init(jax.random.key(0), X, task_id=0)
    transform = optax.adamw(0.05, weight_decay=0.1)  # which moves what has no gradient
    learner = Learner(Own(), {"params": variables["params"]}, transform, accumulate=accumulate)
    fresh = learner.start(variables)
    bank = learner.learn(fresh, "first", [{"inputs": X, "labels": jnp.arange(8) % 3}] * 3)
    np.testing.assert_array_equal(bank.shared["up"]["frozen_a"], fresh.shared["up"]["frozen_a"])
    assert np.abs(bank.tasks["up"]["lora_b"][0]).max() > 0
