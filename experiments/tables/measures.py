"""The columns of a job's table that say how well a method does, by what its results are measured in.

Most jobs have accuracy after the last task and forgetting, and accuracy without the task's id where that was measured.
A job of texts has bits per byte, the gain over the frozen model, and how much of the gain is kept.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.report.blocks import spread
from experiments.report.cells import DASH, percent
from experiments.report.gains import BITS_FROZEN, BITS_LAST, BITS_LEARNT, MEAN_KEPT, METRIC, over_runs
from experiments.report.routing import WITH_ROUTER, finding

Method = Mapping[str, Any]


class Measure(NamedTuple):
    """A column: its head, and its cell for a method of `results.json`."""

    head: str
    cell: Callable[[Method], str]


def measures_of(results: Mapping[str, Any]) -> tuple[str, list[Measure]]:
    """What a sentence in front of the table says of its columns, and the columns.

    Args:
        results: the content of `results.json`.
    """
    metrics = list(dict.fromkeys(results.get("metrics") or ["accuracy"]))
    if metrics == [METRIC]:
        said = (
            "bits per byte of the test texts after the last task; gain: how much lower they were than the frozen "
            "model's when each task had been learnt; kept: what is left of it after the last task, in percent"
        )
        return said, [Measure("bits per byte", _last), Measure("gain", _gain), Measure("gain kept", _kept)]
    metric = " and ".join(metrics).replace("_", " ")
    said, columns = f"{metric} after the last task in percent, forgetting in points", [
        Measure(metric, lambda method: _mean(method, "acc")),
        Measure("forgetting", lambda method: _mean(method, "forgetting")),
    ]  # fmt: skip
    if any(finding(method, WITH_ROUTER) != DASH for method in results["methods"].values()):
        columns.insert(1, Measure("without the id", lambda method: finding(method, WITH_ROUTER)))
    return said, columns


def _mean(method: Method, key: str) -> str:
    return spread(percent, method["mean"][key], method["std"][key])


def _bits(method: Method, key: str) -> list[float]:
    return [value for value in over_runs(method, key).values() if value is not None]


def _last(method: Method) -> str:
    return f"{np.mean(_bits(method, BITS_LAST)):.3f}"


def _gain(method: Method) -> str:
    frozen = _bits(method, BITS_FROZEN)
    return f"{np.mean(frozen) - np.mean(_bits(method, BITS_LEARNT)):.3f}" if frozen else DASH


def _kept(method: Method) -> str:
    return finding(method, MEAN_KEPT)
