"""One train step, three ways: one device, jit over every mesh of eight devices, pmap; gradients equal to 1e-6."""

import functools

import jax
import numpy as np
import optax
import pytest
from parallel_job import BATCH, METHODS, SHAPES, ParallelJob, close, random_batch

from share_jax.bank.slots import read_slot
from share_jax.errors import InputError
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.sharding.placement import put_base, put_batch, put_state
from share_jax.train import pmap
from share_jax.train.losses import classification, report
from share_jax.train.step import make_train_step

RAGGED = 11


@functools.cache
def job_of(method="shared_a", first=True):
    return ParallelJob(method, first=first)


def trained(state):
    return jax.device_get((state.shared, state.slot))


def on_one(job, batch, **options):
    step = make_train_step(*job.parts, train_shared=job.first, **options)
    state, metrics = step(job.init_state(), job.base, batch)
    return trained(state), jax.device_get(metrics)


@functools.cache
def wanted(method, first=True, size=BATCH, count=RAGGED):
    """One device's gradients and metrics."""
    return on_one(job_of(method, first), random_batch(count, size))


def on_mesh(job, batch, shape, rules=None, **options):
    layout = layout_of(make_mesh(shape), job.base["params"], job.adapted, rules)
    step = make_train_step(*job.parts, train_shared=job.first, layout=layout, **options)
    before = put_state(layout, job.init_state())
    where = jax.tree.map(lambda leaf: leaf.sharding, before)
    state, metrics = step(before, put_base(layout, job.base), put_batch(layout, batch))
    same = jax.tree.map(lambda leaf, old: leaf.sharding.is_equivalent_to(old, leaf.ndim), state, where)
    assert all(jax.tree.leaves(same))
    return trained(state), jax.device_get(metrics)


def on_pmap(job, batch, **options):
    step = pmap.make_pmap_step(*job.parts, train_shared=job.first, **options)
    state, metrics = step(pmap.replicate(job.init_state()), pmap.replicate(job.base), pmap.split(batch))
    for leaf in jax.tree.leaves((state.slot, metrics)):
        np.testing.assert_array_equal(np.asarray(leaf), np.broadcast_to(np.asarray(leaf)[:1], leaf.shape))
    return trained(pmap.unreplicate(state)), jax.device_get(pmap.unreplicate(metrics))


def test_there_are_ten_shapes():
    assert len(SHAPES) == 10
    assert {shape.devices for shape in SHAPES} == {8}


ONE_AXIS = [shape for shape in SHAPES if 8 in (shape.data, shape.fsdp, shape.tensor)]
"""Each axis alone; all of them together are in the test below, and pairs of them are slow tests."""


@pytest.mark.parametrize("method", ["shared_a", pytest.param("share_adapt", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "shape", [each if each in ONE_AXIS else pytest.param(each, marks=pytest.mark.slow) for each in SHAPES], ids=str
)
def test_every_mesh_of_eight_gives_the_gradients_of_one_device(method, shape):
    """With a ragged last batch: the weight of the padding differs from device to device."""
    job, batch = job_of(method), random_batch(RAGGED)
    close(on_mesh(job, batch, shape), wanted(method))


@pytest.mark.parametrize("method", METHODS)
def test_pmap_and_a_mesh_of_all_axes_give_the_gradients_of_one_device_for_every_form(method):
    job, batch = job_of(method, method != "share"), random_batch(RAGGED)
    want = wanted(method, method != "share")
    close(on_mesh(job, batch, MeshShape(2, 2, 2)), want)
    close(on_pmap(job, batch), want)


@pytest.mark.parametrize("way", ["one", "mesh", "pmap"])
def test_microbatches_give_the_gradients_of_the_whole_batch_when_padding_lies_in_one_of_them(way):
    job, batch = job_of(), random_batch(5, 32)
    run = {
        "one": lambda: on_one(job, batch, accumulate=4),
        "mesh": lambda: on_mesh(job, batch, MeshShape(2, 2, 2), accumulate=4),
        "pmap": lambda: on_pmap(job, batch, accumulate=2),
    }[way]
    close(run(), wanted("shared_a", True, 32, 5))


def test_the_mean_of_the_devices_means_is_another_number():
    """What the tests above would let through if the padding lay evenly: here it cannot."""
    job, batch = job_of(), random_batch(RAGGED)
    _, whole = wanted("shared_a")
    halves = [{k: v[s] if v.ndim else v for k, v in batch.items()} for s in (slice(0, 8), slice(8, 16))]
    answer = jax.jit(
        lambda inputs: job.forward(job.base, job.trees["shared"], read_slot(job.trees["tasks"], 1), inputs, None)
    )
    means = [report(classification(answer(half["inputs"]), half))["loss"] for half in halves]
    assert abs(np.mean(means) - whole["loss"]) > 1e-3


@pytest.mark.parametrize("first", [True, False])
def test_ten_steps_of_clipped_adamw_end_alike_and_frozen_leaves_keep_their_bits(first):
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=0.1))
    job = ParallelJob(first=first, transform=transform)
    layout = layout_of(make_mesh(MeshShape(2, 2, 2)), job.base["params"], job.adapted)
    base = put_base(layout, job.base)
    one = make_train_step(*job.parts, train_shared=first)
    mesh = make_train_step(*job.parts, train_shared=first, layout=layout)
    mine, theirs = job.init_state(), put_state(layout, job.init_state())
    compiled = mesh.lower(theirs, base, put_batch(layout, random_batch())).compile()
    for seed in range(10):
        batch = random_batch(RAGGED, seed=seed)
        mine, metrics = one(mine, job.base, batch)
        theirs, other = compiled(theirs, base, put_batch(layout, batch))
        np.testing.assert_allclose(other["loss"], metrics["loss"], rtol=1e-5)
    close(trained(theirs), trained(mine), 1e-5)
    if not first:
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(theirs.shared), jax.device_get(job.trees["shared"]))


def test_moments_lie_where_their_leaves_lie():
    job = ParallelJob(transform=optax.adamw(1e-2))
    layout = layout_of(make_mesh(MeshShape(2, 2, 2)), job.base["params"], job.adapted)
    where = layout.state(job.init_state())
    shared, slot = where.shared["layer_0"]["up"]["lora_a"], where.slot["layer_0"]["up"]["lora_b"]
    assert (shared.spec, slot.spec) == (jax.P("fsdp", None), jax.P(None, "tensor"))
    moments = [leaf for leaf in jax.tree.leaves(where.opt_state) if leaf.spec in (shared.spec, slot.spec)]
    split = [leaf for leaf in jax.tree.leaves((where.shared, where.slot)) if leaf.spec in (shared.spec, slot.spec)]
    assert len(moments) == 2 * len(split) > 0


def test_what_does_not_divide_is_refused_in_one_line():
    job = job_of()
    with pytest.raises(InputError, match=r"mesh: got data=3,fsdp=1,tensor=1 for 3 devices, expected one for 8"):
        make_mesh(MeshShape(3))
    layout = layout_of(make_mesh(MeshShape(8)), job.base["params"], job.adapted)
    with pytest.raises(InputError, match="examples in a batch: got 12, expected a multiple of 8"):
        put_batch(layout, random_batch(size=12))
    with pytest.raises(InputError, match="examples in a batch: got 16, expected a multiple of 3"):
        make_train_step(*job.parts, train_shared=True, accumulate=3)(job.init_state(), job.base, random_batch())
    with pytest.raises(InputError, match="examples in a batch: got 12, expected a multiple of 8"):
        pmap.split(random_batch(size=12))
    assert BATCH % 8 == 0
