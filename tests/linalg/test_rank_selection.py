"""How k is chosen, against a plain loop over the definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import numerical_rank

from share_jax import linalg

QUICK = settings(deadline=None, max_examples=15, derandomize=True)

SPECTRA = st.lists(st.floats(0.01, 10), min_size=1, max_size=12).map(lambda s: sorted(s, reverse=True))


def smallest(values, holds):
    return next((k for k in range(len(values) + 1) if holds(k)), len(values))


@QUICK
@given(s=SPECTRA, threshold=st.sampled_from([0.05, 0.31, 0.6, 0.913, 0.999]))
def test_explained_variance_takes_the_smallest_k_that_reaches_it(s, threshold):
    squares = np.asarray(s) ** 2
    k = linalg.k_by_explained_variance(
        np.asarray(s, np.float32), np.float32(squares.sum()), np.int32(len(s)), threshold
    )
    margin = 1e-5 * squares.sum()
    assert squares[: int(k)].sum() >= threshold * squares.sum() - margin
    assert int(k) == 0 or squares[: int(k) - 1].sum() < threshold * squares.sum() + margin


@QUICK
@given(s=SPECTRA, error=st.sampled_from([0.0, 0.02, 0.2, 0.77, 1.0]))
def test_relative_error_takes_the_smallest_k_that_reaches_it(s, error):
    squares = np.asarray(s) ** 2
    total = squares.sum()
    k = int(linalg.k_by_relative_error(np.asarray(s, np.float32), np.float32(total), np.int32(len(s)), error))
    assert np.sqrt(squares[k:].sum()) <= error * np.sqrt(total) * (1 + 1e-5)
    assert k == smallest(s, lambda j: np.sqrt(squares[j:].sum()) <= error * np.sqrt(total) * (1 + 1e-5)) or k == (
        smallest(s, lambda j: np.sqrt(squares[j:].sum()) <= error * np.sqrt(total) * (1 - 1e-5))
    )


def test_nothing_goes_above_the_numerical_rank():
    s = np.asarray([[1.0, 0.5, 1e-9, 0.0], [1.0, 0.9, 0.8, 0.7], [0.0, 0.0, 0.0, 0.0]], np.float32)
    rank = numerical_rank(s, rows=4, columns=4)
    np.testing.assert_array_equal(rank, [2, 4, 0])
    total = np.sum(s**2, axis=-1)
    np.testing.assert_array_equal(linalg.k_by_explained_variance(s, total, rank, 1.0), [2, 4, 0])
    np.testing.assert_array_equal(linalg.k_by_relative_error(s, total, rank, 0.0), [2, 4, 0])


def test_energy_lost_earlier_counts_against_the_threshold():
    # of a total of 100, the spectrum holds 90: 0.85 asks for 85, whatever has been lost before
    s = np.sqrt(np.asarray([60.0, 20.0, 6.0, 4.0], np.float32))
    k = linalg.k_by_explained_variance(s, np.float32(100.0), np.int32(4), 0.85)
    assert int(k) == 3
    assert int(linalg.k_by_explained_variance(s, np.float32(100.0), np.int32(4), 0.95)) == 4
