"""Balanced factors on the host, against NumPy's float64 SVD of the update."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax.adapters.factors import Factors
from share_jax.errors import InputError
from share_jax.linalg.balance import balanced
from share_jax.subspace import error_bounds
from share_jax.subspace.initialization import initialize
from share_jax.subspace.rank_choice import Choice

QUICK = settings(deadline=None, max_examples=15, derandomize=True)


def pair(seed, d_in, d_out, r, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d_in, r)).astype(dtype), rng.standard_normal((d_out, r)).astype(dtype)


def of_one(a, b):
    """Balanced factors of one pair, in float64."""
    x, y = balanced(a[None, None], b[None, None])[:2]
    assert x.dtype == a.dtype
    assert y.dtype == b.dtype
    return x[0, 0].astype(np.float64), y[0, 0].astype(np.float64)


def check_balanced(a, b, tolerance=1e-6):
    x, y = of_one(a, b)
    update = a.astype(np.float64) @ b.astype(np.float64).T
    s = np.linalg.svd(update, compute_uv=False)[: x.shape[1]]
    assert x.shape[1] == y.shape[1] == min(a.shape[1], *update.shape)
    np.testing.assert_allclose(x @ y.T, update, atol=tolerance * s[0])
    for side in (x, y):
        np.testing.assert_allclose(side.T @ side, np.diag(s), atol=tolerance * s[0])
        alive = s > 1e-3 * s[0]  # each column for itself, as exact as the largest
        np.testing.assert_allclose(np.sum(side * side, axis=0)[alive], s[alive], rtol=1e3 * tolerance)


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


def test_float64_is_balanced_in_float64_and_less_than_float32_in_that():
    a, b = pair(0, 50, 40, 8, np.float64)
    check_balanced(a, b, tolerance=1e-13)
    x, y = balanced(a[None, None] * 1e200, b[None, None] * 1e-200)[:2]
    np.testing.assert_allclose(x[0, 0] @ y[0, 0].T, a @ b.T, rtol=1e-9)
    low = balanced(a[None, None].astype(np.float16), b[None, None].astype(ml_dtypes.bfloat16))[:2]
    assert [x.dtype for x in low] == [np.float32, np.float32]


def test_close_columns_of_many_are_told_apart_as_those_of_few():
    # exact in float32; a threshold that grew with the number of columns would take the difference for rounding
    a, b = pair(0, 80, 70, 64)
    a, b = a / np.float32(80**0.5), b / np.float32(70**0.5)
    a[:, 1] = a[:, 0]
    a[1, 1] += np.float32(4e-7)
    b[:, 1] = -b[:, 0]
    x, y = of_one(a, b)
    np.testing.assert_allclose(x @ y.T, a.astype(np.float64) @ b.astype(np.float64).T, atol=1e-6)
    difference = a[1, 1].astype(np.float64) - a[1, 0]
    own = (x @ y.T)[1] - (a[:, 2:].astype(np.float64) @ b[:, 2:].astype(np.float64).T)[1]
    np.testing.assert_allclose(own, -difference * b[:, 0], atol=1e-7)


def test_a_task_is_balanced_to_the_bit_as_without_its_neighbours():
    a, b = (np.random.default_rng(0).standard_normal((1, 3, d, 4)).astype(np.float32) for d in (20, 30))
    b[0, 1] = 0  # untrained
    a[0, 2, :, 3] = a[0, 2, :, 0]  # of lower rank
    together = balanced(a, b)[:2]
    for t in range(3):
        alone = balanced(a[:, t : t + 1], b[:, t : t + 1])[:2]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[:, t : t + 1], other)


def test_an_update_past_float32_is_one_clear_line():
    huge = Factors(np.full((9, 2), 1e38, np.float32), np.full((2, 7), 1e-3, np.float32), 64.0)
    fine = Factors(np.ones((9, 2), np.float32), np.ones((2, 7), np.float32))
    with pytest.raises(InputError, match=r"target q, adapter 2 of 2.*past float32"):
        initialize({"x": {"q": fine}, "y": {"q": huge}}, Choice(k=2))


@QUICK
@given(seed=st.integers(0, 99), d=st.integers(1, 30), p=st.integers(1, 5))
def test_distances_from_gram_matrices_are_those_of_the_updates(seed, d, p):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((3, d + more, p)) for more in (0, 4))
    c, e = (x + 0.1 * rng.standard_normal(x.shape) for x in (a, b))
    grams = [
        error_bounds.Grams(*(np.swapaxes(u, 1, 2) @ v for u, v in ((x, x), (x, y), (y, y))))
        for x, y in ((a, c), (b, e))
    ]
    size, squared, margin = error_bounds.distance_from_grams(*grams)
    one, other = a @ np.swapaxes(b, 1, 2), c @ np.swapaxes(e, 1, 2)
    np.testing.assert_allclose(size, np.sum(one**2, axis=(1, 2)), rtol=1e-9)
    np.testing.assert_allclose(squared, np.sum((one - other) ** 2, axis=(1, 2)), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(margin, error_bounds.rounding(a, b), rtol=1e-9)


def test_layers_and_tasks_are_balanced_each_by_itself():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((3, 4, d, 2)).astype(np.float32) for d in (9, 7))
    x, y = balanced(a, b)[:2]
    for i in np.ndindex(3, 4):
        alone = balanced(a[i][None, None], b[i][None, None])[:2]
        np.testing.assert_allclose(x[i] @ y[i].T, a[i] @ b[i].T, atol=1e-5)
        np.testing.assert_allclose(np.abs(x[i]), np.abs(alone[0][0, 0]), atol=1e-5)


def test_balancing_tells_the_gram_matrices_and_the_energies_of_what_it_saw():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 3, d, 5)).astype(np.float32) for d in (40, 30))
    a[1, 2], b[1, 0, :, 4] = 0, b[1, 0, :, 3]  # a task without a factor, and one with a column twice
    found = balanced(a, b)
    for x, gram, side in ((a, found.known.gram_a, found.a), (b, found.known.gram_b, found.b)):
        wide = x.astype(np.float64)
        np.testing.assert_allclose(gram, wide.mT @ wide, rtol=1e-14, atol=1e-12)
        np.testing.assert_allclose(found.known.energy, np.sum(side.astype(np.float64) ** 2, (-2, -1)), rtol=2e-7)
    assert found.known.energy[1, 2] == 0


def test_energies_of_float64_and_of_cut_columns_are_of_what_is_kept():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((1, 1, 3, 6)), rng.standard_normal((1, 1, 50, 6))
    found = balanced(a, b)
    assert found.a.shape == (1, 1, 3, 3)
    np.testing.assert_allclose(found.known.energy, np.linalg.norm(a[0, 0] @ b[0, 0].T, "nuc"), rtol=1e-12)
    np.testing.assert_allclose(found.known.energy[0, 0], np.sum(found.a**2), rtol=1e-12)
