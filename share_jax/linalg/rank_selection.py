"""How many columns of a spectrum to keep. Nothing here goes above the numerical rank."""

import numpy as np

from share_jax.annotations import Bool, Float, Int

Array = np.ndarray | np.generic
"""NumPy gives a scalar of its own where there is no batch."""


def tail_energies(
    singular_values: Float[np.ndarray, "*batch m"], total: Float[Array, "*batch"] | float
) -> Float[np.ndarray, "*batch n"]:
    """Squared tail norms after keeping 0, 1, ..., m columns (m + 1 values): `total - sum_{j<=k} s_j^2`, at least 0.

    `total` is the squared Frobenius norm of the whole stack, which may hold more than the given values. Where it holds
    just them, the tail is summed from its small end, so nothing cancels.

    Args:
        singular_values: s, (..., m), largest first.
        total: squared Frobenius norm of the whole stack.

    >>> tail_energies(np.array([2.0, 1.0]), 5.0).tolist()
    [5.0, 1.0, 0.0]
    """
    total = np.asarray(total, np.float64)
    squares = np.square(singular_values, dtype=np.float64)
    tails = np.cumsum(squares[..., ::-1], axis=-1)[..., ::-1]
    tails = np.concatenate([tails, np.zeros_like(tails[..., :1])], axis=-1)
    missing = np.maximum(total - np.sum(squares, axis=-1), 0)
    # singular values are as exact as their dtype: a difference below its rounding is no energy that was lost
    rounding = total * (8 * np.finfo(singular_values.dtype).eps)
    return tails + np.where(missing > rounding, missing, 0)[..., None]


def _first(holds: Bool[np.ndarray, "*batch n"], rank: Int[Array, "*batch"] | int) -> Int[Array, "*batch"]:
    """The first index at which `holds`, never above `rank`; `rank` where none does."""
    if not holds.shape[-1]:  # a spectrum without a value: nothing has to be kept
        return np.broadcast_to(np.asarray(rank), holds.shape[:-1])
    index = np.where(np.any(holds, axis=-1), np.argmax(holds, axis=-1), rank)
    return np.minimum(index, rank)


def k_by_explained_variance(
    singular_values: Float[np.ndarray, "*batch m"],
    total: Float[Array, "*batch"] | float,
    rank: Int[Array, "*batch"] | int,
    threshold: float,
) -> Int[Array, "*batch"]:
    """The smallest k with `sum_{j<=k} s_j^2 >= threshold * total`, at most `rank`.

    Args:
        singular_values: s, (..., m), largest first.
        total: squared Frobenius norm of the whole stack.
        rank: the most columns.
        threshold: share of `total` that is kept at least, in (0, 1].

    >>> int(k_by_explained_variance(np.array([2.0, 1.0]), 5.0, 2, 0.75))
    1
    """
    tails = tail_energies(singular_values, total)
    return _first(tails <= (1 - threshold) * np.asarray(total)[..., None], rank)


def k_by_relative_error(
    singular_values: Float[np.ndarray, "*batch m"],
    total: Float[Array, "*batch"] | float,
    rank: Int[Array, "*batch"] | int,
    error: float,
) -> Int[Array, "*batch"]:
    """The smallest k whose tail norm is at most `error` times the norm of the stack, at most `rank`.

    Args:
        singular_values: s, (..., m), largest first.
        total: squared Frobenius norm of the whole stack.
        rank: the most columns.
        error: the largest norm of what is discarded, relative to the stack's, in [0, 1).

    >>> int(k_by_relative_error(np.array([2.0, 1.0]), 5.0, 2, 0.5))
    1
    """
    tails = tail_energies(singular_values, total)
    return _first(tails <= error**2 * np.asarray(total)[..., None], rank)
