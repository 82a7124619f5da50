"""What is read off a method's runs task by task, for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report.results import matrix_of, task_key


def forgetting_per_task(matrix: np.ndarray) -> np.ndarray:
    """(T - 1,) drop of each task but the last: `max_{i<T} acc[i, j] - acc[T, j]`, nan where it was not evaluated.

    Its mean is `share_jax.metrics.forgetting` (Chaudhry et al. 2018).

    >>> forgetting_per_task(np.array([[0.9, np.nan], [0.5, 0.8]]))
    array([0.4])
    """
    before, last = matrix[:-1, :-1], matrix[-1, :-1]
    learnt = np.tril(np.ones_like(before, dtype=bool))
    evaluated = np.where(np.isnan(before), -np.inf, before)
    known = ~np.isnan(np.where(learnt, before, 0)).any(axis=0)
    return np.where(known, evaluated.max(axis=0, initial=-np.inf) - last, np.nan)


def mean_forgetting(method: Mapping[str, Any]) -> np.ndarray:
    """(T - 1,) forgetting of each task, the mean over the runs."""
    return np.mean([forgetting_per_task(matrix_of(run)) for run in method["runs"]], axis=0)


def task_seconds(method: Mapping[str, Any]) -> np.ndarray | None:
    """(runs, T) wall time of each task, or None if some run does not tell it."""
    told = [
        [run["seconds"].get(task_key(number)) for number in range(1, len(run["accuracy_matrix"]) + 1)]
        for run in method["runs"]
    ]
    if any(value is None for each in told for value in each):
        return None
    return np.array(told, dtype=np.float64)


def update_errors(method: Mapping[str, Any], tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """(T,) measured and (T,) proven relative error of each task's update, the largest over the runs.

    None for a method that does not merge; nan for a task that a run does not tell of.
    """
    found = [run.get("extra", {}) for run in method["runs"]]
    if not all("error_bound" in extra and "measured_error" in extra for extra in found):
        return None
    measured, bound = (
        np.array([[_number(extra[key].get(task)) for task in tasks] for extra in found]).max(axis=0)
        for key in ("measured_error", "error_bound")
    )
    return measured, bound


def kept(method: Mapping[str, Any], tasks: int) -> float | None:
    """Numbers that are kept for all tasks: adapters and heads; None if not counted."""
    held = method["params"]
    if held["total_tasks"] is None or held["heads_per_task"] is None:
        return None
    return held["total_tasks"] + held.get("head_sets", tasks) * held["heads_per_task"]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
