"""Bases against numpy's float64 SVD: projectors are compared, never vectors."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import numerical_rank

from share_jax import linalg
from share_jax.linalg import spectrum as module
from share_jax.linalg.spectrum import Spectrum, gram_basis, joined, ranked, svd_basis, symmetric_basis

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


def by(path):
    """The spectrum of one stack by one path, whatever its size."""

    def spectrum(x: np.ndarray) -> Spectrum:
        return ranked(path(joined([x])), float(np.sum(np.square(x, dtype=np.float64))), min(x.shape))

    return spectrum


PATHS = {"dense": by(svd_basis), "gram": by(gram_basis)}


@pytest.mark.parametrize("path", PATHS)
@QUICK
@given(d=SIZES, n=SIZES, rank=SIZES, seed=st.integers(0, 99))
def test_every_path_spans_the_stack_up_to_its_numerical_rank(path, d, n, rank, seed):
    x = graded(seed, d, n, rank)
    spectrum = PATHS[path](x)
    found = int(numerical_rank(spectrum.singular_values, rows=d, columns=n))
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
    spectrum = PATHS[path](x)
    assert int(numerical_rank(spectrum.singular_values, rows=120, columns=40)) == 30
    residual = x - spectrum.basis[:, :30] @ (spectrum.basis[:, :30].T @ x)
    assert np.linalg.norm(residual) < 3e-6


@QUICK
@given(seed=st.integers(0, 99), k=st.integers(1, 8))
def test_the_gram_path_agrees_with_dense_at_a_gap(seed, k):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((60, k)) @ rng.standard_normal((k, 90)) + 0.05 * rng.standard_normal((60, 90))).astype(
        np.float32
    )
    basis = PATHS["gram"](x).basis[:, :k]
    np.testing.assert_allclose(projector(basis), projector(oracle(x, k)), atol=1e-4)


@QUICK
@given(d=SIZES, n=SIZES, seed=st.integers(0, 99), data=st.data())
def test_squared_error_is_the_sum_of_discarded_squares_and_no_random_basis_does_better(d, n, seed, data):
    # property 1 (Eckart-Young)
    x = np.random.default_rng(seed).standard_normal((d, n)).astype(np.float32)
    k = data.draw(st.integers(0, min(d, n)))
    spectrum = PATHS["dense"](x)
    basis = np.asarray(spectrum.basis[:, :k], np.float64)
    error = np.sum((x - basis @ (basis.T @ x)) ** 2)
    discarded = np.sum(np.asarray(spectrum.singular_values, np.float64)[k:] ** 2)
    total = np.sum(x.astype(np.float64) ** 2)
    assert abs(error - discarded) <= 1e-5 * total
    tails = linalg.tail_energies(spectrum.singular_values, np.float32(total))
    assert abs(float(tails[k]) - error) <= 1e-5 * total
    other = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((d, k)))[0]
    assert error <= np.sum((x - other @ (other.T @ x)) ** 2) + 1e-5 * total


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_low_precision_inputs_are_upcast_before_the_svd(dtype):
    x = graded(0, 20, 10, 4).astype(dtype)
    for path in PATHS.values():
        spectrum = path(x)
        assert spectrum.basis.dtype == np.float32
        np.testing.assert_allclose(spectrum.basis.T @ spectrum.basis, np.eye(10), atol=1e-5)


def test_float64_stays_float64():
    x = graded(0, 20, 10, 4).astype(np.float64)
    for path in PATHS.values():
        spectrum = path(x)
        assert spectrum.basis.dtype == np.float64
        kept = spectrum.basis[:, :10]
        np.testing.assert_allclose(kept @ (kept.T @ x), x, atol=1e-13)


@pytest.mark.parametrize("dense_up_to", [0, 128])
def test_stacks_of_many_shapes_together_are_each_as_alone(dense_up_to, monkeypatch):
    monkeypatch.setattr(module, "DENSE_UP_TO", dense_up_to)
    stacks = [[graded(s, 24 + s % 2, 16, 5)[:, :9], graded(s, 24 + s % 2, 16, 5)[:, 9:]] for s in range(6)]
    for parts, spectrum in zip(stacks, linalg.spectra(stacks), strict=True):
        x = np.concatenate(parts, axis=1)
        np.testing.assert_allclose(projector(spectrum.basis[:, :5]), projector(oracle(x, 5)), atol=2e-4)
        assert spectrum.rank == 5
        np.testing.assert_allclose(spectrum.energy, np.sum(x.astype(np.float64) ** 2), rtol=1e-12)
        (alone,) = linalg.spectra([parts])
        np.testing.assert_array_equal(alone.basis, spectrum.basis)


def test_padding_is_never_counted_as_rank():
    x = graded(1, 30, 8, 5)
    padded = np.concatenate([x, np.zeros((30, 12), np.float32)], axis=1)
    for path in PATHS.values():
        spectrum = path(padded)
        assert int(numerical_rank(spectrum.singular_values, rows=30, columns=8)) == spectrum.rank == 5
    assert int(numerical_rank(np.zeros(4), rows=30, columns=8)) == linalg.numerical_rank(np.zeros(4), rows=30) == 0


def test_small_columns_of_a_tall_stack_count_and_its_rounding_does_not():
    rng = np.random.default_rng(0)
    large = rng.standard_normal((40_000, 4)) @ rng.standard_normal((4, 20))
    small = 3e-3 * rng.standard_normal((40_000, 2))  # 5e-4 of the largest; 40,000 machine epsilons are 5e-3
    (alone,) = linalg.spectra([[large.astype(np.float32)]])
    (both,) = linalg.spectra([[large.astype(np.float32), small.astype(np.float32)]])
    assert (alone.rank, both.rank) == (4, 6)


def test_symmetric_basis_takes_a_gram_matrix():
    x = graded(2, 20, 50, 6)
    basis, values = symmetric_basis(x @ x.T)
    np.testing.assert_allclose(projector(basis[:, :6]), projector(oracle(x, 6)), atol=1e-3)
    s = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(values[:6], s[:6], rtol=1e-3)
