"""The range finder and the balancing on the host, against NumPy's float64 SVD; projectors are compared."""

import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax.core import parallel
from share_jax.core.fold import balanced
from share_jax.core.leading import OVERSAMPLE, leading_basis
from share_jax.core.spectra import leading_spectra, spectra_of_stacks

QUICK = settings(deadline=None, max_examples=15, derandomize=True)


def graded(seed, d, n, smallest):
    """A (d, n) matrix with singular values from 1 to `smallest`, geometric."""
    rng, m = np.random.default_rng(seed), min(d, n)
    u, v = (np.linalg.qr(rng.standard_normal((x, m)))[0] for x in (d, n))
    return (u * np.geomspace(1, smallest, m)) @ v.T


def projector(basis):
    basis = np.asarray(basis, np.float64)
    return basis @ basis.T


def oracle(x, k):
    return np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)[0][:, :k]


@QUICK
@given(seed=st.integers(0, 99), k=st.integers(1, 8))
def test_the_leading_subspace_is_that_of_the_svd_where_there_is_a_gap(seed, k):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, k)) @ rng.standard_normal((k, 90)) + 0.05 * rng.standard_normal((60, 90))
    basis, values = leading_basis(x.astype(np.float32), k=k, seed=seed)
    assert basis.shape == (60, k + OVERSAMPLE)
    np.testing.assert_allclose(basis.T @ basis, np.eye(k + OVERSAMPLE), atol=1e-5)
    np.testing.assert_allclose(projector(basis[:, :k]), projector(oracle(x, k)), atol=1e-4)
    np.testing.assert_allclose(values[:k], np.linalg.svd(x, compute_uv=False)[:k], rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
def test_what_is_missed_is_within_half_a_percent_of_the_least_without_any_gap(decay):
    s = np.arange(1, 201.0) ** -decay
    x = (graded(0, 300, 200, 1.0) @ np.diag(s) if decay else np.random.default_rng(0).standard_normal((300, 200))) * 7
    basis = leading_basis(x.astype(np.float32), k=32)[0][:, :32].astype(np.float64)
    least = np.sqrt(np.sum(np.linalg.svd(x, compute_uv=False)[32:] ** 2))
    assert np.linalg.norm(x - basis @ (basis.T @ x)) <= 1.005 * least


def test_directions_below_the_rounding_of_a_gram_matrix_survive():
    # singular values down to 3e-4 of the largest: their squares are below float32's rounding of the largest
    x = graded(3, 120, 40, 3e-4).astype(np.float32)
    basis, values = leading_basis(x, k=40)
    assert np.linalg.norm(x - basis @ (basis.T @ x)) < 3e-6
    np.testing.assert_allclose(values, np.geomspace(1, 3e-4, 40), rtol=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_stack_of_lower_rank_of_any_size(size):
    low = graded(0, 50, 4, 0.1) @ np.random.default_rng(0).standard_normal((4, 70)) * size
    basis, values = leading_basis(low.astype(np.float32), k=10)
    np.testing.assert_allclose(basis[:, :4] @ (basis[:, :4].T @ low), low, atol=1e-5 * size)
    assert np.all(values[4:] < 1e-5 * values[0])
    np.testing.assert_allclose(values[:4], np.linalg.svd(low, compute_uv=False)[:4], rtol=1e-5)


def test_a_stack_of_nothing():
    basis, values = leading_basis(np.zeros((50, 70), np.float32), k=10)
    assert np.all(values == 0)
    assert np.all(np.isfinite(basis))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_what_is_below_float32_is_taken_in_it_and_float64_stays(dtype):
    basis, values = leading_basis(graded(0, 40, 60, 1e-2).astype(dtype), k=40)
    wide = dtype == np.float64
    assert basis.dtype == values.dtype == (np.float64 if wide else np.float32)
    np.testing.assert_allclose(basis.T @ basis, np.eye(40), atol=1e-13 if wide else 1e-5)


def test_float64_resolves_what_a_gram_matrix_of_it_would_not():
    x = graded(3, 60, 40, 1e-12)
    np.testing.assert_allclose(leading_basis(x, k=40)[1], np.geomspace(1, 1e-12, 40), rtol=1e-3)


def test_wider_than_the_stack_means_all_of_it():
    assert leading_basis(np.ones((5, 9), np.float32), k=50)[0].shape == (5, 5)


def test_a_seed_gives_the_same_bits_on_one_processor_and_on_many(monkeypatch):
    x = np.random.default_rng(0).standard_normal((6, 200, 300)).astype(np.float32)
    monkeypatch.setattr(parallel, "processors", lambda: 4)
    many = spectra_of_stacks(x, k=20, seed=7)
    monkeypatch.setattr(parallel, "processors", lambda: 1)
    one = spectra_of_stacks(x, k=20, seed=7)
    np.testing.assert_array_equal(many.basis, one.basis)
    assert not np.array_equal(spectra_of_stacks(x, k=20, seed=8).basis, one.basis)


def test_a_stack_in_parts_is_that_stack():
    x = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
    whole = spectra_of_stacks(x[None], k=20)
    parts = leading_spectra([x[:, :100], np.asfortranarray(x[:, 100:110]), x[:, 110:]], k=20)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def pair(seed, d_in, d_out, r, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d_in, r)).astype(dtype), rng.standard_normal((d_out, r)).astype(dtype)


def of_one(a, b):
    """Balanced factors of one pair, in float64."""
    x, y = balanced(a[None, None], b[None, None])
    assert x.dtype == a.dtype
    assert y.dtype == b.dtype
    return x[0, 0].astype(np.float64), y[0, 0].astype(np.float64)


def check_balanced(a, b, tolerance=1e-6):
    x, y = of_one(a, b)
    update = a.astype(np.float64) @ b.astype(np.float64).T
    s = np.linalg.svd(update, compute_uv=False)[: x.shape[1]]
    assert x.shape[1] == y.shape[1] == min(a.shape[1], *update.shape)
    np.testing.assert_allclose(x @ y.T, update, atol=tolerance * s[0])
    np.testing.assert_allclose(x.T @ x, np.diag(s), atol=tolerance * s[0])
    np.testing.assert_allclose(y.T @ y, np.diag(s), atol=tolerance * s[0])


@QUICK
@given(seed=st.integers(0, 99), d_in=st.integers(1, 40), d_out=st.integers(1, 40), r=st.integers(1, 9))
def test_balanced_factors_of_any_shape(seed, d_in, d_out, r):
    check_balanced(*pair(seed, d_in, d_out, r))


@pytest.mark.parametrize(("a_size", "b_size"), [(1e-20, 1e-18), (1e19, 1e18), (1e-15, 1e15)])
def test_tiny_and_huge_updates_lose_nothing(a_size, b_size):
    a, b = pair(0, 50, 40, 8)
    check_balanced(a * np.float32(a_size), b * np.float32(b_size))


def test_columns_of_very_different_lengths_are_as_exact_as_any():
    a, b = pair(0, 50, 40, 8)
    lengths = np.geomspace(1e-6, 1e6, 8).astype(np.float32)
    check_balanced(a * lengths, b / lengths)


def test_small_singular_values_of_an_update_are_kept():
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.standard_normal((50, 8)))[0] * np.geomspace(1, 1e-6, 8)
    b = np.linalg.qr(rng.standard_normal((40, 8)))[0]
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    x, _ = of_one((a @ turn).astype(np.float32), (b @ turn).astype(np.float32))
    np.testing.assert_allclose(np.sum(x * x, axis=0)[:5], np.geomspace(1, 1e-6, 8)[:5], rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_that_depend_on_others_come_out_as_nothing(dtype):
    a, b = pair(0, 50, 40, 8, dtype)
    a[:, 3:] = a[:, :5]
    check_balanced(a, b)
    x, y = of_one(a, b)
    assert np.all(x[:, 5:] == 0)
    assert np.all(y[:, 5:] == 0)
    b[:] = 0
    assert all(np.all(side == 0) for side in of_one(a, b))


def test_float64_is_balanced_in_float64():
    check_balanced(*pair(0, 50, 40, 8, np.float64), tolerance=1e-13)


def test_layers_and_tasks_are_balanced_each_by_itself():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((3, 4, d, 2)).astype(np.float32) for d in (9, 7))
    x, y = balanced(a, b)
    for i in np.ndindex(3, 4):
        alone = balanced(a[i][None, None], b[i][None, None])
        np.testing.assert_allclose(x[i] @ y[i].T, a[i] @ b[i].T, atol=1e-5)
        np.testing.assert_allclose(np.abs(x[i]), np.abs(alone[0][0, 0]), atol=1e-5)


def test_each_keeps_the_order_runs_side_by_side_and_passes_errors_on(monkeypatch):
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # breaks unless two pieces are at work at once

    def work(x):
        both.wait()
        return -x

    assert parallel.each(work, [3, 1, 2, 4]) == [-3, -1, -2, -4]
    with pytest.raises(ZeroDivisionError):
        parallel.each(lambda x: 1 / x, [1, 0])


def test_compressing_loads_no_jax():
    """A command that needs no compiled program does not wait for the compiler."""
    code = """
import sys
import numpy as np
from share_jax.core.choice import Choice
from share_jax.core.fold import Factors
from share_jax.core.initialize import initialize
from share_jax.interop import build, adapter_set
from share_jax.core.subspace import factors_of
rng = np.random.default_rng(0)
tasks = {f"t{i}": {"q": Factors(rng.normal(size=(300, 4)).astype("f4"), rng.normal(size=(4, 200)).astype("f4"))}
         for i in range(50)}
state = initialize(tasks, Choice(k=8))
factors_of(state, "t3")
print("jax" in sys.modules, state.layers["q"].num_basis)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "(8,", "8)"]
