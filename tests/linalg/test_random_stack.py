"""What random stacks lose in closed form, against stacks that were drawn."""

import numpy as np
import pytest

from share_jax.linalg.random_stack import captured_shares

ROWS = 240


def drawn(groups, ks, seed):
    """Captured shares of columns that are orthonormal within a group, as an adapter's are, by eigenvectors."""
    rng = np.random.default_rng(seed)
    columns = [np.linalg.qr(rng.normal(size=(ROWS, len(s))))[0] for s in groups]
    stack = np.concatenate([u * np.sqrt(s) for u, s in zip(columns, groups, strict=True)], axis=1)
    basis = np.linalg.eigh(stack @ stack.T)[1][:, ::-1]
    unit = np.concatenate(columns, axis=1)
    return np.array([np.sum((basis[:, :k].T @ unit) ** 2, axis=0) for k in ks])


CASES = {
    "equal": [np.ones(6)] * 12,
    "falling": [np.arange(1.0, 7.0) ** -1 * scale for scale in np.linspace(0.5, 2, 16)],
    "two sizes": [np.full(4, 1.0)] * 6 + [np.full(4, 10.0)] * 3,
    "more columns than rows": [np.arange(1.0, 7.0) ** -0.5] * 60,
}


@pytest.mark.parametrize("case", CASES)
def test_shares_are_those_of_drawn_stacks(case):
    groups = CASES[case]
    squares = np.concatenate(groups)
    most = min(len(squares), ROWS)
    ks = np.array(sorted({1, 6, most // 4, most // 2}))
    found = captured_shares(squares, ROWS, ks)
    mean = np.mean([drawn(groups, ks, seed) for seed in range(3)], axis=0)
    # by energy, over all columns: a draw is within 2 % of its expectation
    weight = squares / squares.sum()
    np.testing.assert_allclose(found @ weight, mean @ weight, atol=0.02)
    # and for columns of each size, of which a few are averaged
    for size in np.unique(squares.round(6)):
        alike = np.isclose(squares, size)
        if alike.sum() >= 12:
            np.testing.assert_allclose(found[:, alike].mean(1), mean[:, alike].mean(1), atol=0.04)


def test_shares_add_up_to_the_number_of_directions_and_grow_with_it():
    squares = np.random.default_rng(0).lognormal(size=100)
    ks = np.array([1, 5, 20, 60, 100])
    found = captured_shares(squares, 400, ks)
    assert np.all(np.diff(found, axis=0) >= -1e-9)
    assert np.all((found >= 0) & (found <= 1 + 1e-9))
    order = np.argsort(squares)
    assert np.all(np.diff(found[:, order], axis=1) >= -1e-9)  # a longer column is captured first
    # tr(P X X.T) is the energy of the directions, which is no less than an even share of it
    assert np.all(found @ squares >= ks / 100 * squares.sum() * 0.999)


def test_nothing_is_lost_with_all_directions_and_nothing_captured_of_zeros():
    squares = np.array([3.0, 0.0, 1.0, 0.0])
    found = captured_shares(squares, 50, np.array([1, 2, 9]))
    np.testing.assert_array_equal(found[1:], [[1, 0, 1, 0]] * 2)
    assert found[0, 0] > 0.95 > 0.05 > found[0, 2]
    np.testing.assert_array_equal(captured_shares(np.zeros(3), 50, np.array([2])), 0)
    np.testing.assert_array_equal(captured_shares(np.ones(9), 4, np.array([4])), 1)


def test_the_unit_of_squares_does_not_matter():
    squares = np.random.default_rng(1).lognormal(size=40)
    ks = np.array([3, 10])
    plain = captured_shares(squares, 100, ks)
    for unit in (1e-30, 1e30):
        np.testing.assert_allclose(captured_shares(unit * squares, 100, ks), plain, rtol=1e-6)
