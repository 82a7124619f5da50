"""The bounded-memory update against the SVD of the whole stack."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import numerical_rank

from share_jax import linalg

QUICK = settings(deadline=None, max_examples=15, derandomize=True)


def spectrum_of(basis, coeff, new):
    """Of [basis @ coeff, new], by the library; all coefficients are one task's."""
    return linalg.spectra([[linalg.compressed_stack(basis, coeff[None], new)]])[0]


def unit(rng, d, k):
    return np.linalg.qr(rng.standard_normal((d, k)))[0].astype(np.float32)


@QUICK
@given(
    d=st.sampled_from([9, 20, 33]),
    k=st.integers(1, 8),
    n=st.sampled_from([1, 3, 24]),
    r=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_update_agrees_with_the_dense_recomputation(d, k, n, r, seed):
    rng = np.random.default_rng(seed)
    basis, coeff = unit(rng, d, k), rng.standard_normal((k, n)).astype(np.float32)
    new = rng.standard_normal((d, r)).astype(np.float32)
    stack = np.concatenate([basis.astype(np.float64) @ coeff, new], axis=1)
    u, s, _ = np.linalg.svd(stack, full_matrices=False)
    spectrum = spectrum_of(basis, coeff, new)
    rank = min(np.linalg.matrix_rank(stack), spectrum.singular_values.size)
    np.testing.assert_allclose(spectrum.singular_values[:rank], s[:rank], atol=1e-5 * s[0])
    top = np.asarray(spectrum.basis[:, :rank], np.float64)
    np.testing.assert_allclose(top @ top.T @ stack, stack, atol=1e-5 * s[0])
    for keep in range(1, rank):
        if s[keep - 1] > 1.2 * s[keep]:
            best, ours = u[:, :keep], np.asarray(spectrum.basis[:, :keep], np.float64)
            np.testing.assert_allclose(ours @ ours.T, best @ best.T, atol=1e-5 * s[0] / (s[keep - 1] - s[keep]))


@QUICK
@given(k=st.integers(1, 6), n=st.sampled_from([1, 4, 40]), seed=st.integers(0, 99))
def test_root_has_the_gram_matrix_of_the_coefficients(k, n, seed):
    coeff = np.random.default_rng(seed).standard_normal((k, n)).astype(np.float32)
    root = np.asarray(linalg.coefficient_root(coeff))
    assert root.shape == (k, min(k, n))
    np.testing.assert_allclose(root @ root.T, coeff @ coeff.T, atol=1e-5 * np.sum(coeff**2))


@pytest.mark.parametrize("width", [0, 3])
def test_zero_columns_of_the_basis_are_padding(width):
    rng = np.random.default_rng(0)
    basis, coeff = unit(rng, 20, 5), rng.standard_normal((5, 12)).astype(np.float32)
    new = rng.standard_normal((20, 2)).astype(np.float32)
    padded = np.pad(basis, ((0, 0), (0, width)))
    rows = np.pad(coeff, ((0, width), (0, 0)))
    spectrum = spectrum_of(padded, rows, new)
    assert int(numerical_rank(spectrum.singular_values, rows=20, columns=14)) == 7
    plain = spectrum_of(basis, coeff, new)
    ours, theirs = np.asarray(spectrum.basis[:, :7]), np.asarray(plain.basis[:, :7])
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)


def test_old_coefficients_rotate_into_the_new_basis():
    rng = np.random.default_rng(1)
    old, new = unit(rng, 15, 4), unit(rng, 15, 6)
    coeff = rng.standard_normal((4, 9)).astype(np.float32)
    np.testing.assert_allclose(linalg.rotate(new, old, coeff[None])[0], new.T @ (old @ coeff), atol=1e-5)
