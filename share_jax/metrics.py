r"""What is read off an accuracy matrix: the measures of continual learning.

`matrix[i, j]` is the accuracy on task j after learning task i (both counted from 0 in code, from 1 in the
formulas), nan where it was not evaluated; `untrained[j]` is the untrained model's accuracy on task j. Values
are fractions or any other finite score where more is better. Every measure is a plain mean of differences or
ratios, so one entry that was not evaluated leaves it undefined: it is None then, never nan and never a guess.
"""

import numpy as np
from numpy.typing import ArrayLike

from share_jax.annotations import Float
from share_jax.errors import InputError, message

NAMES = (
    "acc",
    "learning_accuracy",
    "bwt",
    "fwt",
    "forgetting",
    "retention",
    "average_incremental_accuracy",
)
"""The measures in the order in which they are reported."""


def acc(matrix: ArrayLike) -> float | None:
    """Mean accuracy over all tasks after the last one: `mean_j acc[T, j]`.

    Source: Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory", eq. 2 (ACC).

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        The mean of the last row, or None if any of it was not evaluated.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> acc([[0.75, 0.25], [0.5, 1.0]])
    0.75
    """
    return _mean(_square(matrix)[-1])


def learning_accuracy(matrix: ArrayLike) -> float | None:
    """Mean accuracy on each task when it has just been learnt: `mean_j acc[j, j]`.

    Source: Riemer et al. 2019, "Learning to Learn without Forgetting" (learning accuracy).

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        The mean of the diagonal, or None if any of it was not evaluated.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> learning_accuracy([[0.75, 0.25], [0.5, 1.0]])
    0.875
    """
    return _mean(np.diagonal(_square(matrix)))


def bwt(matrix: ArrayLike) -> float | None:
    """Backward transfer: `mean_{j<T} acc[T, j] - acc[j, j]`; below 0 where old tasks were lost.

    Source: Lopez-Paz and Ranzato 2017, eq. 3 (BWT).

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        The mean change since each task was learnt; None for a single task or where an entry is missing.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> bwt([[0.75, 0.25], [0.5, 1.0]])
    -0.25
    """
    square = _square(matrix)
    return _mean(square[-1, :-1] - np.diagonal(square)[:-1])


def fwt(matrix: ArrayLike, untrained: ArrayLike | None) -> float | None:
    """Forward transfer: `mean_{j>1} acc[j-1, j] - b[j]`, what earlier tasks give to one not yet learnt.

    Source: Lopez-Paz and Ranzato 2017, eq. 4 (FWT).

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.
        untrained: (T,) accuracies b of the untrained model, or None if it was not evaluated.

    Returns:
        The mean gain before learning; None for a single task or where an entry is missing.

    Raises:
        InputError: the matrix is not square, or `untrained` is not a vector of the same length.

    >>> fwt([[0.75, 0.25], [0.5, 1.0]], [0.5, 0.125])
    0.125
    """
    square = _square(matrix)
    baseline = _vector(untrained, len(square))
    return _mean(np.diagonal(square, offset=1) - baseline[1:])


def forgetting(matrix: ArrayLike) -> float | None:
    """Mean drop from the best accuracy ever had: `mean_{j<T} max_{i<T} acc[i, j] - acc[T, j]`.

    Source: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning" (average forgetting measure).
    The maximum runs over every row before the last; rows before task j was learnt (above the diagonal) count
    where they were evaluated, those from task j on must have been. Below 0 where the last row is the best.

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        The mean drop; None for a single task or where an entry on or below the diagonal is missing.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> forgetting([[0.75, 0.25, 0.0], [0.875, 1.0, 0.5], [0.5, 0.75, 1.0]])
    0.3125
    """
    square = _square(matrix)
    if not _lower_is_known(square):
        return None
    before = square[:-1, :-1]
    best = np.max(np.where(np.isnan(before), -np.inf, before), axis=0, initial=-np.inf)
    return _mean(best - square[-1, :-1])


def retention(matrix: ArrayLike) -> float | None:
    """Share of each task's accuracy that is left at the end: `mean_j acc[T, j] / acc[j, j]`.

    Source: Kaushik et al. 2026, "Shared LoRA Subspaces for almost Strict Continual Learning" (retention).

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        The mean ratio; None where an entry is missing or a task was learnt to an accuracy of 0.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> retention([[0.75, 0.25], [0.375, 1.0]])
    0.75
    """
    square = _square(matrix)
    learnt = np.diagonal(square)
    if np.any(learnt == 0):
        return None
    return _mean(square[-1] / learnt)


def average_incremental_accuracy(matrix: ArrayLike) -> float | None:
    """Mean over time of the accuracy on the tasks seen so far: `mean_i mean_{j<=i} acc[i, j]`.

    Source: Rebuffi et al. 2017, "iCaRL" (average incremental accuracy).

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        The mean of `seen_accuracy`; None where an entry on or below the diagonal is missing.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> average_incremental_accuracy([[0.5, 0.0], [0.5, 1.0]])
    0.625
    """
    return _mean(seen_accuracy(matrix))


def seen_accuracy(matrix: ArrayLike) -> Float[np.ndarray, " T"]:
    """Accuracy over the tasks seen so far, after each task: `mean_{j<=i} acc[i, j]` for every i.

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.

    Returns:
        (T,) means, nan for a row in which a task already seen was not evaluated.

    Raises:
        InputError: the matrix is not a square array of finite numbers or nan.

    >>> seen_accuracy([[0.5, 0.0], [0.5, 1.0]]).tolist()
    [0.5, 0.75]
    """
    square = _square(matrix)
    return np.array([row[: i + 1].mean() for i, row in enumerate(square)])


def summarize(matrix: ArrayLike, untrained: ArrayLike | None = None) -> dict[str, float | None]:
    """Every measure of `NAMES` at once, by name; None where it is undefined.

    Args:
        matrix: (T, T) accuracies, nan where not evaluated.
        untrained: (T,) accuracies of the untrained model, nan where not evaluated, or None.

    Raises:
        InputError: the matrix is not square, or `untrained` is not a vector of the same length.

    >>> summary = summarize([[0.75, 0.25], [0.5, 1.0]], [0.5, 0.125])
    >>> summary["acc"], summary["bwt"], summary["forgetting"]
    (0.75, -0.25, 0.25)
    >>> summarize([[float("nan"), float("nan")], [0.5, 1.0]])["bwt"] is None
    True
    """
    measures = {
        "acc": acc(matrix),
        "learning_accuracy": learning_accuracy(matrix),
        "bwt": bwt(matrix),
        "fwt": fwt(matrix, untrained),
        "forgetting": forgetting(matrix),
        "retention": retention(matrix),
        "average_incremental_accuracy": average_incremental_accuracy(matrix),
    }
    return {name: measures[name] for name in NAMES}


def _square(matrix: ArrayLike) -> Float[np.ndarray, "T T"]:
    values = _floats("accuracy matrix", matrix)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] == 0:
        raise InputError(
            message(
                "accuracy matrix",
                got=f"shape {values.shape}",
                expected="(T, T) with T at least 1",
                fix="give one row per task learnt and one column per task, nan where not evaluated",
            )
        )
    return values


def _vector(untrained: ArrayLike | None, tasks: int) -> Float[np.ndarray, " T"]:
    if untrained is None:
        return np.full(tasks, np.nan)
    values = _floats("untrained accuracies", untrained)
    if values.shape != (tasks,):
        raise InputError(
            message(
                "untrained accuracies",
                got=f"shape {values.shape}",
                expected=f"({tasks},)",
                fix="give one value per task of the accuracy matrix, nan where not evaluated",
            )
        )
    return values


def _floats(what: str, values: ArrayLike) -> Float[np.ndarray, "..."]:
    fix = "give numbers, nan where not evaluated"
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        got = f"a {type(values).__name__} that is no array of numbers"
        raise InputError(message(what, got=got, expected="an array of numbers", fix=fix)) from None
    if np.any(np.isinf(array)):
        raise InputError(message(what, got="an infinite value", expected="finite numbers or nan", fix=fix))
    return array


def _lower_is_known(square: Float[np.ndarray, "T T"]) -> bool:
    return not np.any(np.isnan(square[np.tril_indices(len(square))]))


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    if values.size == 0 or np.any(np.isnan(values)):
        return None
    return float(values.mean())
