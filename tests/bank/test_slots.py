"""The task axis: ids checked, out-of-range ids never answered by another task, learnt slots kept to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.bank import slots
from share_jax.errors import InputError, TaskError


def stack(size: int = 3) -> dict:
    return {
        "layer": {"lora_b": jnp.arange(size * 8.0).reshape(size, 2, 4)},
        "head": {"bias": 100 + jnp.arange(size * 5.0).reshape(size, 5)},
    }


def equal_bits(a, b) -> bool:
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return all(jax.tree.leaves(same))


def test_capacity_is_the_leading_size_of_every_leaf():
    assert slots.capacity(stack(3)) == 3
    for bad in ({}, {"a": jnp.zeros((2, 1)), "b": jnp.zeros((3, 1))}):
        with pytest.raises(InputError, match="one size for every leaf"):
            slots.capacity(bad)


@pytest.mark.parametrize("task_id", [0, 2, np.int64(1), jnp.int32(2), [0, 2], np.array([2, 2, 0], np.int64), (1,)])
def test_ids_of_every_integer_kind_become_int32(task_id):
    ids = slots.as_task_id(task_id, 3)
    assert ids.dtype == jnp.int32
    assert np.array_equal(ids, np.asarray(task_id))


@pytest.mark.parametrize("task_id", [3, -1, [0, 3], np.array([-1, 0]), jnp.int32(7)])
def test_a_concrete_id_out_of_range_is_a_task_error(task_id):
    with pytest.raises(TaskError) as caught:
        slots.as_task_id(task_id, 3)
    assert "\n" not in str(caught.value)
    assert "0 to 2" in str(caught.value)


@pytest.mark.parametrize(
    "task_id", [np.array([0.0]), True, jnp.float32(0.0), np.zeros((1, 1), np.int32), np.array("0")]
)
def test_what_is_not_whole_numbers_is_an_input_error(task_id):
    with pytest.raises(InputError):
        slots.as_task_id(task_id, 3)


def test_a_traced_float_id_is_an_input_error():
    with pytest.raises(InputError):
        jax.jit(lambda i: slots.as_task_id(i, 3))(1.0)


def test_gather_gives_one_slot_or_one_per_example():
    tree = stack()
    one = slots.gather(tree, jnp.int32(1))
    assert equal_bits(one, jax.tree.map(lambda leaf: np.asarray(leaf)[1], tree))
    ids = np.array([2, 0, 0, 1])
    assert equal_bits(slots.gather(tree, jnp.asarray(ids)), jax.tree.map(lambda leaf: np.asarray(leaf)[ids], tree))


@pytest.mark.parametrize("bad", [-1, -3, 3, 2**31 - 1, -(2**31)])
def test_a_traced_id_out_of_range_gives_nan_and_never_another_task(bad):
    one = jax.jit(slots.gather)(stack(), jnp.int32(bad))
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(one))
    mixed = jax.jit(slots.gather)(stack(), jnp.array([1, bad]))
    assert all(np.isnan(leaf[1]).all() and np.isfinite(leaf[0]).all() for leaf in jax.tree.leaves(mixed))


def test_gather_reads_numpy_leaves_too():
    tree = jax.tree.map(np.asarray, stack())
    assert equal_bits(slots.gather(tree, jnp.int32(2)), jax.tree.map(lambda leaf: leaf[2], tree))


def test_the_gradient_of_gather_is_exactly_zero_outside_the_slot():
    def total(tree):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slots.gather(tree, jnp.int32(1))))

    for leaf in jax.tree.leaves(jax.grad(total)(stack())):
        assert not np.asarray(leaf)[[0, 2]].any()
        assert np.asarray(leaf)[1].any()


def test_put_changes_one_slot_and_no_bit_of_the_others():
    before = stack()
    slot = jax.tree.map(lambda leaf: -leaf - 0.1, slots.read_slot(before, 1))
    after = slots.write_slot(before, 1, slot)
    assert equal_bits(slots.read_slot(after, 1), slot)
    for other in (0, 2):
        assert equal_bits(slots.read_slot(after, other), slots.read_slot(before, other))
    assert equal_bits(before, stack())


@pytest.mark.parametrize("index", [-1, 3])
def test_lift_and_put_refuse_an_index_that_is_no_slot(index):
    with pytest.raises(TaskError):
        slots.read_slot(stack(), index)
    with pytest.raises(TaskError):
        slots.write_slot(stack(), index, slots.read_slot(stack(), 0))


def test_put_refuses_a_slot_of_another_shape_or_structure():
    slot = slots.read_slot(stack(), 0)
    wrong_shape = {**slot, "head": {"bias": jnp.zeros(4)}}
    missing = {"layer": slot["layer"]}
    broadcastable = {**slot, "head": {"bias": jnp.zeros(())}}
    for bad in (wrong_shape, missing, broadcastable, stack()):
        with pytest.raises(InputError, match="slot"):
            slots.write_slot(stack(), 0, bad)


def test_a_lifted_slot_is_a_copy_that_may_be_donated():
    tree = stack()
    slot = slots.read_slot(tree, 0)
    jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(slot)
    assert equal_bits(tree, stack())


def test_as_stack_and_gather_are_inverse():
    slot = slots.read_slot(stack(), 2)
    assert equal_bits(slots.gather(slots.as_stack(slot), jnp.int32(0)), slot)


@pytest.mark.parametrize(("size", "needed", "want"), [(1, 1, 1), (1, 3, 4), (3, 4, 6), (8, 5, 8), (0, 3, 4)])
def test_capacity_grows_by_doubling(size, needed, want):
    assert slots.doubled(size, needed) == want


def test_append_keeps_the_first_stack_in_front_and_its_dtype():
    both = slots.append(stack(2), jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), stack(3)))
    assert slots.capacity(both) == 5
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(both))
    assert equal_bits(jax.tree.map(lambda leaf: leaf[:2], both), stack(2))
