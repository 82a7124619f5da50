"""Bases against numpy's float64 SVD: projectors are compared, never vectors."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax import linalg

QUICK = settings(deadline=None, max_examples=15, derandomize=True)

SIZES = st.sampled_from([1, 5, 12, 33])


def graded(seed: int, d: int, n: int, rank: int, smallest: float = 1e-2) -> np.ndarray:
    """A (d, n) matrix of exact rank `rank`, singular values geometric from 1 to `smallest`."""
    rng = np.random.default_rng(seed)
    rank = min(rank, d, n)
    u = np.linalg.qr(rng.standard_normal((d, rank)))[0]
    v = np.linalg.qr(rng.standard_normal((n, rank)))[0]
    return ((u * np.geomspace(1, smallest, rank)) @ v.T).astype(np.float32)


def projector(basis: np.ndarray) -> np.ndarray:
    basis = np.asarray(basis, np.float64)
    return basis @ basis.T


def oracle(x: np.ndarray, k: int) -> np.ndarray:
    return np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)[0][:, :k]


PATHS = {
    "dense": linalg.dense_basis,
    "gram": linalg.gram_basis,
}


@pytest.mark.parametrize("path", PATHS)
@QUICK
@given(d=SIZES, n=SIZES, rank=SIZES, seed=st.integers(0, 99))
def test_every_path_spans_the_stack_up_to_its_numerical_rank(path, d, n, rank, seed):
    x = graded(seed, d, n, rank)
    spectrum = PATHS[path](jnp.asarray(x))
    found = int(linalg.numerical_rank(spectrum.singular_values, rows=d, columns=n))
    assert found == min(d, n, rank)
    basis = np.asarray(spectrum.basis)[:, :found]
    np.testing.assert_allclose(basis.T @ basis, np.eye(found), atol=1e-5)
    np.testing.assert_allclose(projector(basis), projector(oracle(x, found)), atol=2e-4)
    np.testing.assert_allclose(basis @ (basis.T @ x), x, atol=2e-6)
    s = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(spectrum.singular_values[:found], s[:found], rtol=1e-3)


@pytest.mark.parametrize("path", PATHS)
def test_small_directions_survive_where_a_plain_gram_matrix_loses_them(path):
    # singular values down to 1e-4 of the largest: their squares are below float32's rounding of the largest
    x = graded(3, 120, 40, 30, smallest=3e-4)
    spectrum = PATHS[path](jnp.asarray(x))
    assert int(linalg.numerical_rank(spectrum.singular_values, rows=120, columns=40)) == 30
    residual = x - spectrum.basis[:, :30] @ (spectrum.basis[:, :30].T @ x)
    assert np.linalg.norm(residual) < 3e-6


@QUICK
@given(seed=st.integers(0, 99), k=st.integers(1, 8))
def test_the_gram_path_agrees_with_dense_at_a_gap(seed, k):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((60, k)) @ rng.standard_normal((k, 90)) + 0.05 * rng.standard_normal((60, 90))).astype(
        np.float32
    )
    basis = linalg.gram_basis(x).basis[:, :k]
    np.testing.assert_allclose(projector(basis), projector(oracle(x, k)), atol=1e-4)


@QUICK
@given(d=SIZES, n=SIZES, seed=st.integers(0, 99), data=st.data())
def test_squared_error_is_the_sum_of_discarded_squares_and_no_random_basis_does_better(d, n, seed, data):
    # property 1 (Eckart-Young)
    x = np.random.default_rng(seed).standard_normal((d, n)).astype(np.float32)
    k = data.draw(st.integers(0, min(d, n)))
    spectrum = linalg.dense_basis(x)
    basis = np.asarray(spectrum.basis[:, :k], np.float64)
    error = np.sum((x - basis @ (basis.T @ x)) ** 2)
    discarded = np.sum(np.asarray(spectrum.singular_values, np.float64)[k:] ** 2)
    total = np.sum(x.astype(np.float64) ** 2)
    assert abs(error - discarded) <= 1e-5 * total
    tails = linalg.tail_energies(spectrum.singular_values, jnp.asarray(total, jnp.float32))
    assert abs(float(tails[k]) - error) <= 1e-5 * total
    other = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((d, k)))[0]
    assert error <= np.sum((x - other @ (other.T @ x)) ** 2) + 1e-5 * total


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_low_precision_inputs_are_upcast_before_the_svd(dtype):
    x = graded(0, 20, 10, 4).astype(dtype)
    for path in PATHS.values():
        spectrum = path(jnp.asarray(x))
        assert spectrum.basis.dtype == jnp.float32
        np.testing.assert_allclose(spectrum.basis.T @ spectrum.basis, np.eye(10), atol=1e-5)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(graded(0, 20, 10, 4).astype(np.float64))
        for path in PATHS.values():
            spectrum = path(x)
            assert spectrum.basis.dtype == jnp.float64
            kept = spectrum.basis[:, :10]
            np.testing.assert_allclose(kept @ (kept.T @ x), x, atol=1e-13)


def test_paths_batch_over_layers():
    x = np.stack([graded(s, 24, 16, 5) for s in range(6)]).reshape(2, 3, 24, 16)
    for path in PATHS.values():
        together = path(jnp.asarray(x))
        for i in np.ndindex(2, 3):
            np.testing.assert_allclose(projector(together.basis[i][:, :5]), projector(oracle(x[i], 5)), atol=2e-4)


def test_padding_is_never_counted_as_rank():
    x = graded(1, 30, 8, 5)
    padded = np.concatenate([x, np.zeros((30, 12), np.float32)], axis=1)
    for path in PATHS.values():
        spectrum = path(jnp.asarray(padded))
        assert int(linalg.numerical_rank(spectrum.singular_values, rows=30, columns=8)) == 5
    assert int(linalg.numerical_rank(jnp.zeros(4), rows=30, columns=8)) == 0


def test_symmetric_basis_takes_a_gram_matrix():
    x = graded(2, 20, 50, 6)
    spectrum = linalg.symmetric_basis(jnp.asarray(x @ x.T))
    np.testing.assert_allclose(projector(spectrum.basis[:, :6]), projector(oracle(x, 6)), atol=1e-3)
    s = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(spectrum.singular_values[:6], s[:6], rtol=1e-3)
