"""Bits per byte of tasks that are texts, and how much of what was gained on each is kept to the end.

Of a task with the metric `bits_saved`: its gain is the frozen model's bits per byte minus those just after it was
learnt; what is kept of it is the frozen model's minus those after the last task, divided by the gain. 1 is all of it,
and below 0 the model is worse than if it had learnt nothing. A task without a gain above 0 keeps nothing that could be
told. The frozen model is the method `frozen` of the same run, or the method's own model before it has learnt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.task_metrics import bits_per_byte_of

METRIC = "bits_saved"
FROZEN = "frozen"

KEYS = BITS_FROZEN, BITS_LEARNT, BITS_LAST, KEPT = (
    "bits_per_byte_frozen",
    "bits_per_byte_learnt",
    "bits_per_byte_last",
    "gain_kept",
)
"""Keys of a run's `extra`: of each such task bits per byte, and the share of the gain that is kept."""

MEAN_KEPT = "mean_gain_kept"


def with_gains(methods: Mapping[str, Any], tasks: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """The methods of `results.json` with these findings in every run, where tasks are scored by `bits_saved`.

    Args:
        methods: by name, as the file has them.
        tasks: names, in order.
        metrics: of the tasks; none where all have accuracy.
    """
    places = [place for place, metric in enumerate(metrics) if metric == METRIC]
    if not places:
        return dict(methods)
    frozen = methods.get(FROZEN)
    before = None if frozen is None else _mean([_diagonal(run) for run in frozen["runs"]])

    def told(run: Mapping[str, Any]) -> dict[str, Any]:
        own = np.array(run.get("untrained", [None] * len(tasks)), np.float64)
        found = findings(before if before is not None else own, _diagonal(run), _row(run, -1), tasks, places)
        return {**run, "extra": {**run.get("extra", {}), **found}}

    return {name: {**method, "runs": [told(run) for run in method["runs"]]} for name, method in methods.items()}


def findings(
    before: np.ndarray, learnt: np.ndarray, last: np.ndarray, tasks: Sequence[str], places: Sequence[int]
) -> dict[str, Any]:
    """Bits per byte and what is kept of the gains, null where it is not known.

    Args:
        before: (T,) `bits_saved` of the frozen model, nan where not evaluated.
        learnt: (T,) just after each task.
        last: (T,) after the last task.
        tasks: names.
        places: of the tasks that are scored so.

    >>> half = findings(np.array([0.5]), np.array([0.75]), np.array([0.625]), ["C"], [0])
    >>> half["bits_per_byte_last"], half["gain_kept"], half["mean_gain_kept"]
    ({'C': 3.0}, {'C': 0.5}, 0.5)
    """
    gain = learnt - before
    kept = np.where(gain > 0, (last - before) / np.where(gain > 0, gain, 1), np.nan)
    rows = {BITS_FROZEN: before, BITS_LEARNT: learnt, BITS_LAST: last}
    found: dict[str, Any] = {
        key: {tasks[place]: _known(bits_per_byte_of(row[place])) for place in places} for key, row in rows.items()
    }
    found[KEPT] = {tasks[place]: _known(kept[place]) for place in places}
    found[MEAN_KEPT] = _known(float(np.mean(kept[list(places)])))
    return found


def over_runs(method: Mapping[str, Any], key: str) -> dict[str, float | None]:
    """The mean over a method's runs of one of `KEYS`, by task; empty where no run tells."""
    told = [run.get("extra", {}).get(key) for run in method["runs"]]
    if None in told:
        return {}
    return {task: _known(_mean([[each.get(task)] for each in told])[0]) for task in told[0]}


def _diagonal(run: Mapping[str, Any]) -> np.ndarray:
    return np.diagonal(np.array(run["accuracy_matrix"], np.float64))


def _row(run: Mapping[str, Any], row: int) -> np.ndarray:
    return np.array(run["accuracy_matrix"], np.float64)[row]


def _mean(rows: Sequence[Any]) -> np.ndarray:
    return np.mean(np.array(rows, np.float64), axis=0)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
