"""Products of one basis with what many tasks have on it, and squared norms: large products instead of many small ones.

Coefficients and columns of tasks are stacks (T, k, q) and (T, d, q). One product with all of them side by side takes a
fraction of the time of T products, whose matrices are too small to keep a processor busy.
"""

import numpy as np

from share_jax.annotations import Float


def energy(x: Float[np.ndarray, "..."]) -> float:
    """The squared norm of all of `x`, in float64.

    >>> energy(np.float32([[1, 2], [2, 0]]))
    9.0
    """
    flat = x.ravel(order="K")  # a view, however the axes lie
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def gram(x: Float[np.ndarray, "*batch d n"]) -> Float[np.ndarray, "*batch n n"]:
    """`x.T @ x`, in float64, which resolves the squares of what float32 holds.

    >>> gram(np.float32([[1, 2], [0, 2]])).tolist()
    [[1.0, 2.0], [2.0, 8.0]]
    """
    wide = x.astype(np.float64, copy=False)
    return wide.mT @ wide


def combine(basis: Float[np.ndarray, "d k"], coeff: Float[np.ndarray, "T k q"]) -> Float[np.ndarray, "T d q"]:
    """`basis @ coeff[t]` of every task.

    >>> combine(np.eye(3)[:, :2], np.ones((4, 2, 1))).shape
    (4, 3, 1)
    """
    tasks, _, q = coeff.shape
    return np.swapaxes((basis @ side_by_side(coeff)).reshape(len(basis), tasks, q), 0, 1)


def project(basis: Float[np.ndarray, "d k"], columns: Float[np.ndarray, "T d q"]) -> Float[np.ndarray, "T k q"]:
    """`basis.T @ columns[t]` of every task: least-squares coefficients, if the basis is orthonormal.

    >>> project(np.eye(3)[:, :2], np.ones((4, 3, 1))).shape
    (4, 2, 1)
    """
    rows = np.swapaxes(columns, 1, 2)
    return np.swapaxes((rows.reshape(-1, rows.shape[2]) @ basis).reshape(*rows.shape[:2], basis.shape[1]), 1, 2)


def side_by_side(x: Float[np.ndarray, "T d q"]) -> Float[np.ndarray, "d n"]:
    """The columns of all tasks in one stack, n = T q, task by task.

    >>> side_by_side(np.arange(4).reshape(2, 1, 2)).tolist()
    [[0, 1, 2, 3]]
    """
    return np.swapaxes(x, 0, 1).reshape(x.shape[1], x.shape[0] * x.shape[2])
