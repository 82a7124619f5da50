"""The pivoted gauge: the same updates, in fewer numbers, and back through the files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax.adapter_set.int8_gauge import UNIT_SCALE, balanced_state, identity_rows, largest_rows, pivoted_state
from share_jax.adapters.factors import Factors
from share_jax.subspace.initialization import initialize
from share_jax.subspace.quantize import store
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import factors_of


def make(ranks=(3, 5, 2), d_in=24, d_out=20, shared=9):
    rng = np.random.default_rng(5)
    columns = rng.normal(size=(d_in, shared)), rng.normal(size=(shared, d_out))
    adapters = {}
    for t, rank in enumerate(ranks):
        a, b = columns[0] @ rng.normal(size=(shared, rank)), rng.normal(size=(rank, shared)) @ columns[1]
        adapters[f"t{t}"] = {"q": Factors(a.astype("f4"), b.astype("f4"))}
    return initialize(adapters, Choice(k=shared))


def dense(state, task):
    return {n: np.asarray(f.lora_a, "f8") @ np.asarray(f.lora_b, "f8") for n, f in factors_of(state, task).items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_chosen_rows_bound_every_other_entry_by_one(rank, more, seed):
    a = np.random.default_rng(seed).normal(size=(4, rank + more, rank))
    rows, good = largest_rows(a)
    assert good.all()
    for t in range(4):
        assert len(set(rows[t])) == rank
        x = a[t] @ np.linalg.inv(a[t][rows[t]])
        assert np.abs(x).max() <= 1 + 1e-5


def test_rows_of_a_deficient_matrix_are_not_found():
    a = np.random.default_rng(0).normal(size=(3, 8, 3))
    a[1, :, 2] = a[1, :, 0]
    a[2] = 0
    assert largest_rows(a)[1].tolist() == [True, False, False]


@pytest.mark.parametrize("change", [pivoted_state, balanced_state, lambda s: balanced_state(pivoted_state(s))])
def test_the_gauge_changes_no_update(change):
    state = make()
    other = change(state)
    for task in state.tasks:
        x, y = dense(state, task)["q"], dense(other, task)["q"]
        assert np.linalg.norm(x - y) < 1e-5 * np.linalg.norm(x)


def test_balanced_coefficients_weigh_both_sides_alike():
    layer = balanced_state(pivoted_state(make())).layers["q"]
    for t, rank in enumerate(layer.ranks):
        a, b = layer.coeff_a[t, :, :rank], layer.coeff_b[t, :, :rank]
        np.testing.assert_allclose(a.T @ a, b.T @ b, atol=1e-4 * np.abs(a.T @ a).max())


def test_stored_int8_holds_the_identity_and_costs_little_accuracy():
    state = make()
    plain, rounded = store(state, "int8")
    pivoted, stored = store(pivoted_state(state), "int8")
    layer = state.layers["q"]
    scales = pivoted["q"].coeff_a.scales.reshape(len(layer.ranks), -1)
    for t, rank in enumerate(layer.ranks):
        rows = identity_rows(pivoted["q"].coeff_a.values[t][:, :rank], scales[t, :rank])
        assert rows is not None
        assert identity_rows(plain["q"].coeff_a.values[t][:, :rank], np.full(rank, UNIT_SCALE)) is None
    for task in state.tasks:
        x = dense(state, task)["q"]
        errors = [np.linalg.norm(x - dense(s, task)["q"]) / np.linalg.norm(x) for s in (rounded, stored)]
        assert errors[1] < 3 * errors[0]
        assert errors[1] < 0.02
