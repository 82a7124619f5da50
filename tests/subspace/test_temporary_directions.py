"""Learning a task with data inside the subspace, in pure arrays: the pure parts of properties 5, 7, 8 and 9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax.adapters.factors import Factors
from share_jax.errors import InputError
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.serving import adapter_of
from share_jax.subspace.state import factors_of, report
from share_jax.subspace.temporary_directions import temporary

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


def slot_of(layer, phi, p, *, seed=0, zero_side="b"):
    """What trains of a task: temporary directions and their coefficients, one side of which starts at zero."""
    own = ShareAdapt(phi, p).init_task(jax.random.key(seed), *D)
    coeffs = {"coeff_a": own["coeff_a"], "coeff_b": own["coeff_b"]}
    if zero_side == "a":
        coeffs = {"coeff_a": own["coeff_b"], "coeff_b": own["coeff_a"]}
    return {"basis_a": temporary(layer.basis_a, phi), "basis_b": temporary(layer.basis_b, phi), **coeffs}


def update(slot):
    lora_a, lora_b = ShareAdapt(*slot["coeff_a"].shape).factors({}, slot)
    return lora_a @ lora_b


def loss(slot, target):
    return jnp.sum((update(slot) - target) ** 2)


@jax.jit
def moved(slot, target):
    """One step of gradient descent."""
    return jax.tree.map(lambda value, slope: value - 0.01 * slope, slot, jax.grad(loss)(slot, target))


SHAPES = st.sampled_from([(1, 1), (1, 3), (4, 1), (4, 3)])  # each compiles


@QUICK
@given(seed=st.integers(0, 99), side=st.sampled_from(["a", "b"]), shape=SHAPES)
def test_property_7_zero_side_starts_at_the_base_model_then_everything_moves(state, seed, side, shape):
    phi, p = shape
    start = slot_of(state.layers["q"], phi, p, seed=seed, zero_side=side)
    np.testing.assert_array_equal(update(start), np.zeros(D))
    target = jax.random.normal(jax.random.key(seed + 1), D)
    once = moved(start, target)
    assert any(bool(jnp.any(new != start[name])) for name, new in once.items())
    twice = moved(once, target)
    assert all(bool(jnp.any(new != start[name])) for name, new in twice.items())


def test_property_7_both_sides_at_zero_would_be_a_saddle(state):
    slot = slot_of(state.layers["q"], 2, 1)
    slopes = jax.jit(jax.grad(loss))
    grads = slopes({**slot, "coeff_a": jnp.zeros((2, 1))}, jnp.ones(D))
    assert all(not bool(jnp.any(g)) for g in grads.values())
    grads = slopes({**slot, "coeff_b": 0.1 * jnp.ones((2, 1))}, jnp.ones(D))
    assert all(bool(jnp.any(g)) for g in grads.values())


def test_property_8_temporary_factors_are_copies_and_the_main_basis_stays(state):
    layer = state.layers["q"]
    before = layer.basis_a.copy()
    for phi in (3, layer.basis_a.shape[1]):
        temp = temporary(layer.basis_a, phi)
        np.testing.assert_array_equal(temp, before[:, :phi])
        assert not np.shares_memory(temp, layer.basis_a)
        temp[0] = 7.0
        np.testing.assert_array_equal(layer.basis_a, before)


def test_property_5_trained_temporary_factors_merge_as_their_projection(state):
    layer = state.layers["q"]
    rng = np.random.default_rng(3)
    slot = {
        name: jnp.asarray(x + 0.1 * rng.standard_normal(x.shape), jnp.float32)
        for name, x in slot_of(layer, 2, 2).items()
    }
    learnt = adapter_of(ShareAdapt(2, 2), {}, {"q": slot})["q"]
    merged = merge(state, {"new": {"q": learnt}}, Choice(relative_error=0.0))
    got = factors_of(merged, "new")["q"]
    want = learnt.lora_a @ learnt.lora_b
    np.testing.assert_allclose(got.lora_a @ got.lora_b, want, atol=1e-5 * np.linalg.norm(want))
    assert report(merged)["t0"].error_bound < 1e-5


def test_property_8_and_9_coefficients_alone(state):
    layer = state.layers["q"]
    rng = np.random.default_rng(4)
    coeffs = [rng.standard_normal((k, 1)).astype(np.float32) for k in layer.num_basis]
    bases = {"basis_a": layer.basis_a, "basis_b": layer.basis_b}
    slot = dict(zip(("coeff_a", "coeff_b"), coeffs, strict=True))
    learnt = adapter_of(Share(max(layer.num_basis), 1), {"q": bases}, {"q": slot})
    after = merge(state, {"new": learnt}, Choice(relative_error=0.0))
    assert after.tasks == ("t0", "t1", "new")
    new = after.layers["q"]
    assert new.num_basis == layer.num_basis
    for name in state.tasks:  # what was trained is in the span, which stays
        for before, now in zip(factors_of(state, name).values(), factors_of(after, name).values(), strict=True):
            want = before.lora_a @ before.lora_b
            np.testing.assert_allclose(now.lora_a @ now.lora_b, want, atol=1e-5 * np.linalg.norm(want))
    x = rng.standard_normal((5, D[0])).astype(np.float32)
    factors = factors_of(after, "new")["q"]
    assert factors.rank == 1
    merged_kernel = x @ (factors.lora_a @ factors.lora_b)
    adapter_path = ((x @ layer.basis_a) @ (coeffs[0] @ coeffs[1].T)) @ layer.basis_b.T
    np.testing.assert_allclose(adapter_path, merged_kernel, atol=1e-5 * np.abs(merged_kernel).max())
    np.testing.assert_allclose(new.norm[2], np.linalg.norm(factors.lora_a @ factors.lora_b), rtol=1e-5)


@pytest.mark.parametrize("phi", [0, 99])
def test_more_directions_than_there_are_are_refused(state, phi):
    with pytest.raises(InputError, match="phi"):
        temporary(state.layers["q"].basis_a, phi)
