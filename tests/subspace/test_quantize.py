"""Storage in fewer bytes: what comes back, and that its error is in the bound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax.adapters.factors import Factors
from share_jax.errors import InputError
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.merging import merge
from share_jax.subspace.quantize import decode, encode, nbytes, restored_arrays, store
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import factors_of, relative, report, stack_size

QUICK = settings(deadline=None, max_examples=12, derandomize=True)
# twice the largest rounding error relative to the largest number of a column; bf16 has 8 significant bits
RELATIVE = {"f32": 0.0, "bf16": 2.0**-7, "int8": 1 / 127}


def tasks(count=6, d=(40, 30), r=3, seed=0):
    rng = np.random.default_rng(seed)
    pools = [rng.standard_normal((x, 5)) for x in d]
    return {
        f"t{i}": {
            "q": Factors(
                (pools[0] @ rng.standard_normal((5, r))).astype(np.float32),
                (pools[1] @ rng.standard_normal((5, r))).T.astype(np.float32),
            )
        }
        for i in range(count)
    }


def dense(f):
    return f.scale * np.asarray(f.lora_a, np.float64) @ np.asarray(f.lora_b, np.float64)


@QUICK
@given(storage=st.sampled_from(list(RELATIVE)), seed=st.integers(0, 99), size=st.floats(-6, 6))
def test_rounding_error_is_that_of_the_storage(storage, seed, size):
    x = (np.random.default_rng(seed).standard_normal((3, 7, 4)) * 10.0**size).astype(np.float32)
    back = decode(encode(x, storage, axis=1), axis=1)
    assert back.shape == x.shape
    largest = np.max(np.abs(x), axis=1, keepdims=True)
    assert np.all(np.abs(back - x) <= RELATIVE[storage] / 2 * largest * (1 + 1e-5))


@pytest.mark.parametrize("geometry", ["columns", "flat"])
@pytest.mark.parametrize("storage", list(RELATIVE))
def test_bound_includes_the_storage_error_and_stays_true_through_later_merges(storage, geometry):
    given_tasks = tasks()
    state = initialize_with({n: given_tasks[n] for n in ("t0", "t1", "t2")}, Choice(k=4), geometry=geometry)
    for name in ("t3", "t4"):
        state = merge(state, {name: given_tasks[name]}, Choice(k=4))
        _, state = store(state, storage)
        for n in state.tasks:
            w = dense(given_tasks[n]["q"])
            lost = np.linalg.norm(w - dense(factors_of(state, n)["q"])) / np.linalg.norm(w)
            assert lost <= report(state)[n].error_bound
        for layer in state.layers.values():
            np.testing.assert_allclose(layer.basis_a.T @ layer.basis_a, np.eye(layer.num_basis[0]), atol=1e-5)


@pytest.mark.parametrize(("storage", "most"), [("f32", 0.0), ("bf16", 0.01), ("int8", 0.03)])
def test_stored_arrays_give_the_state_that_was_promised(storage, most):
    state = initialize_with(tasks(), Choice(relative_error=1e-5))
    stored, after = store(state, storage)
    again = replace(state.layers["q"], **restored_arrays(stored["q"]))
    np.testing.assert_array_equal(again.basis_a, after.layers["q"].basis_a)
    np.testing.assert_array_equal(again.coeff_b, after.layers["q"].coeff_b)
    assert np.all(relative(after, "change") <= most)


def test_bytes_really_shrink():
    state = initialize_with(tasks(), Choice(k=5))
    sizes = {name: nbytes(store(state, name)[0]) for name in RELATIVE}
    assert sizes["f32"] == 4 * stack_size(state)
    assert sizes["bf16"] == 2 * stack_size(state)
    assert sizes["int8"] < 0.55 * sizes["bf16"] + 4 * 6 * 3 * 2 + 4 * 10


def test_zero_columns_and_unknown_storage():
    assert np.all(decode(encode(np.zeros((4, 2), np.float32), "int8")) == 0)
    with pytest.raises(InputError, match="storage"):
        encode(np.zeros((4, 2), np.float32), "int4")
