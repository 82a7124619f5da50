"""Adapting by data inside the subspace, in pure arrays: the pure parts of properties 7, 8 and 9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax.adapters.factors import Factors
from share_jax.errors import InputError, TaskError
from share_jax.subspace import temporary_directions
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import factors_of, report

QUICK = settings(deadline=None, max_examples=10, derandomize=True)
D = (13, 10)


def random_task(seed, r=2):
    rng = np.random.default_rng(seed)
    return {
        "q": Factors(
            rng.standard_normal((D[0], r)).astype(np.float32), rng.standard_normal((r, D[1])).astype(np.float32)
        )
    }


@pytest.fixture(scope="module")
def state():
    return initialize({"t0": random_task(0), "t1": random_task(1)}, Choice(relative_error=0.0))


def update(coeffs, bases):
    lora_a, lora_b = temporary_directions.factor_pair(bases[0], coeffs[0], bases[1], coeffs[1])
    return lora_a @ lora_b


def loss(trained, target):
    temp_a, coeff_a, temp_b, coeff_b = trained
    return jnp.sum((update((coeff_a, coeff_b), (temp_a, temp_b)) - target) ** 2)


@QUICK
@given(seed=st.integers(0, 99), side=st.sampled_from(["a", "b"]), phi=st.integers(1, 4), p=st.integers(1, 3))
def test_property_7_zero_side_starts_at_the_base_model_then_everything_moves(state, seed, side, phi, p):
    layer = state.layers["q"]
    temps = [temporary_directions.temporary(x, phi) for x in (layer.basis_a, layer.basis_b)]
    coeffs = temporary_directions.draw_coefficients(jax.random.key(seed), phi, p, zero_side=side)
    np.testing.assert_array_equal(update(coeffs, temps), np.zeros(D))
    start = (temps[0], coeffs[0], temps[1], coeffs[1])
    target = jax.random.normal(jax.random.key(seed + 1), D)
    step = jax.jit(lambda x: jax.tree.map(lambda v, g: v - 0.01 * g, x, jax.grad(loss)(x, target)))
    once = step(start)
    assert any(bool(jnp.any(new != old)) for new, old in zip(once, start, strict=True))
    twice = step(once)
    assert all(bool(jnp.any(new != old)) for new, old in zip(twice, start, strict=True))


def test_property_7_both_sides_at_zero_would_be_a_saddle(state):
    layer = state.layers["q"]
    temps = [temporary_directions.temporary(x, 2) for x in (layer.basis_a, layer.basis_b)]
    zeros = (temps[0], jnp.zeros((2, 1)), temps[1], jnp.zeros((2, 1)))
    grads = jax.grad(loss)(zeros, jnp.ones(D))
    assert all(not bool(jnp.any(g)) for g in grads)
    both = temporary_directions.draw_coefficients(jax.random.key(0), 2, 1, zero_side="neither")
    grads = jax.grad(loss)((temps[0], both[0], temps[1], both[1]), jnp.ones(D))
    assert all(bool(jnp.any(g)) for g in grads)


def test_property_8_temporary_factors_are_copies_and_the_main_basis_stays(state):
    layer = state.layers["q"]
    before = layer.basis_a.copy()
    temp = temporary_directions.temporary(layer.basis_a, 3)
    np.testing.assert_array_equal(temp, before[:, :3])
    jax.block_until_ready((temp * 2).at[0].set(7.0))
    np.testing.assert_array_equal(layer.basis_a, before)
    on_device = jnp.asarray(layer.basis_a)
    copied = temporary_directions.temporary(on_device, on_device.shape[1])
    assert copied.unsafe_buffer_pointer() != on_device.unsafe_buffer_pointer()


def test_property_5_trained_temporary_factors_merge_as_their_projection(state):
    layer = state.layers["q"]
    rng = np.random.default_rng(3)
    temps = [
        temporary_directions.temporary(x, 2) + 0.1 * rng.standard_normal((d, 2))
        for x, d in zip((layer.basis_a, layer.basis_b), D, strict=True)
    ]
    coeffs = [jnp.asarray(rng.standard_normal((2, 2)), jnp.float32) for _ in D]
    temps = [jnp.asarray(x, jnp.float32) for x in temps]
    learnt = temporary_directions.trained_factors(temps[0], coeffs[0], temps[1], coeffs[1])
    merged = merge(state, {"new": {"q": learnt}}, Choice(relative_error=0.0))
    got = factors_of(merged, "new")["q"]
    want = learnt.lora_a @ learnt.lora_b
    np.testing.assert_allclose(got.lora_a @ got.lora_b, want, atol=1e-5 * np.linalg.norm(want))
    assert report(merged)["t0"].error_bound < 1e-5


def test_property_8_and_9_coefficients_alone(state):
    layer = state.layers["q"]
    rng = np.random.default_rng(4)
    coeffs = tuple(rng.standard_normal((k, 1)).astype(np.float32) for k in layer.num_basis)
    after = temporary_directions.set_coefficients(state, "new", {"q": coeffs})
    assert after.tasks == ("t0", "t1", "new")
    new = after.layers["q"]
    np.testing.assert_array_equal(new.basis_a, layer.basis_a)
    np.testing.assert_array_equal(new.coeff_a[:2], layer.coeff_a)
    x = rng.standard_normal((5, D[0])).astype(np.float32)
    factors = factors_of(after, "new")["q"]
    assert factors.rank == 1
    merged_kernel = x @ (factors.lora_a @ factors.lora_b)
    adapter_path = ((x @ layer.basis_a) @ (coeffs[0] @ coeffs[1].T)) @ layer.basis_b.T
    np.testing.assert_allclose(adapter_path, merged_kernel, atol=1e-5 * np.abs(merged_kernel).max())
    np.testing.assert_allclose(new.norm[2], np.linalg.norm(factors.lora_a @ factors.lora_b), rtol=1e-5)
    tuned = temporary_directions.set_coefficients(after, "t0", {"q": coeffs})
    np.testing.assert_array_equal(tuned.layers["q"].coeff_b[1:], new.coeff_b[1:])
    np.testing.assert_array_equal(factors_of(tuned, "t0")["q"].lora_a, factors.lora_a)


def test_wrong_shapes_are_refused(state):
    with pytest.raises(InputError, match="phi"):
        temporary_directions.temporary(state.layers["q"].basis_a, 99)
    one = np.zeros((1, 1), np.float32)
    with pytest.raises(InputError, match="coefficients"):
        temporary_directions.set_coefficients(state, "new", {"q": (one, one)})
    with pytest.raises(TaskError, match="target"):
        temporary_directions.set_coefficients(state, "new", {"k": (one, one)})
