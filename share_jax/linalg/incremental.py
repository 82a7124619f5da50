"""The bounded-memory update of a basis: O(d (k + r)^2) however many columns the old coefficients stand for.

All of it is computed in float64 and rounded once, so that float32 loses no more to a merge than one rounding.
"""

import numpy as np

from share_jax.annotations import Float
from share_jax.linalg.basis_products import combine, side_by_side


def coefficient_root(coeff: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k m"]:
    """A factor L, (k, min(k, n)), with L @ L.T = C @ C.T: the R of the QR of C.T, transposed, in float64.

    It stands for sqrt(C C.T), from which it differs by a rotation on the right. No left singular vector sees that
    rotation, and C's condition number is not squared on the way.

    >>> root = coefficient_root(np.float32([[3, 4]]))
    >>> np.abs(root).round(6).tolist()
    [[5.0]]
    """
    return np.asarray(np.linalg.qr(coeff.T.astype(np.float64), mode="r")).T


def compressed_stack(
    basis: Float[np.ndarray, "d k"], coeff: Float[np.ndarray, "T k q"], new: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, "d m"]:
    """[basis @ L, new] with L L.T = C C.T: at most k + r columns with the left singular pairs of [basis @ C, new].

    C is all tasks' coefficients side by side, (k, T q). (basis C)(basis C).T + new new.T is the same matrix for both.
    Rounded to the dtype of `new`.

    Args:
        basis: the old basis, (d, k).
        coeff: all tasks' coefficients on it, (T, k, q).
        new: columns to be stacked beside it, (d, r).

    >>> compressed_stack(np.eye(4)[:, :2], np.ones((9, 2, 1)), np.ones((4, 1))).shape
    (4, 3)
    """
    old = basis.astype(np.float64) @ coefficient_root(side_by_side(coeff))
    return np.concatenate([old.astype(new.dtype), new], axis=1)


def rotate(
    basis_new: Float[np.ndarray, "d m"], basis_old: Float[np.ndarray, "d k"], coeff: Float[np.ndarray, "T k q"]
) -> Float[np.ndarray, "T m q"]:
    """Old coefficients on the new basis, `(basis_new.T @ basis_old) @ coeff[t]`: rotated, never just padded.

    Args:
        basis_new: the new basis, (d, m).
        basis_old: the one that the coefficients are on, (d, k).
        coeff: the tasks' coefficients, (T, k, q).

    >>> rotate(np.eye(3)[:, :2], np.eye(3)[:, :1], np.float32([[[5]]])).tolist()
    [[[5.0], [0.0]]]
    """
    turn = basis_new.T.astype(np.float64) @ basis_old.astype(np.float64)
    return np.ascontiguousarray(combine(turn, coeff.astype(np.float64)), coeff.dtype)
