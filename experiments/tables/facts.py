"""Facts that are computed from one table's numbers, each a sentence, and the margins to every other method."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.report.blocks import spread, table
from experiments.report.cells import DASH, percent

OURS = ("shared_a", "share")
APART = (*OURS, "share_coefficients", "majority")
"""What our methods are not held against: themselves, and the floor that has a sentence of its own."""

LEVEL = 5e-5
"""Difference of ACC below which two methods are level: less than 0.005 points, which is written as 0.00."""

NOTE = (
    "Points of ACC by which ours are ahead (below 0: behind), and the same in pooled deviations over the seeds; "
    "a deviation over so few seeds is itself a rough estimate."
)

Methods = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Margin:
    """How far one method is ahead of another.

    Attributes:
        points: difference of the mean ACC, a fraction.
        deviations: the same in units of the pooled sample deviation; None with one seed or where nothing varies.
    """

    points: float
    deviations: float | None


def margin(ours: Mapping[str, Any], other: Mapping[str, Any]) -> Margin:
    """The margin of one method of a `results.json` over another.

    The pooled variance is the mean of both sample variances, weighted by their degrees of freedom.
    """
    runs = [[run["acc"] for run in method["runs"]] for method in (ours, other)]
    points = float(np.mean(runs[0]) - np.mean(runs[1]))
    degrees = [len(values) - 1 for values in runs]
    if min(degrees) < 1:
        return Margin(points, None)
    variances = [float(np.var(values, ddof=1)) for values in runs]
    pooled = math.sqrt(sum(d * v for d, v in zip(degrees, variances, strict=True)) / sum(degrees))
    return Margin(points, points / pooled if pooled > 0 else None)


def ahead(points: float) -> bool:
    """Whether a difference of ACC counts; two methods neither of which is ahead are level.

    >>> ahead(0.0001), ahead(0.00004), ahead(-0.0001)
    (True, False, False)
    """
    return points >= LEVEL


def facts(results: Mapping[str, Any]) -> list[str]:
    """Sentences on the content of a `results.json`, those whose methods it has."""
    parts = (_best, _bounds, _to_separate, _forgetting, _errors, _sequential, _floor, _below_frozen_head, _ahead)
    return [sentence for part in parts for sentence in part(results["methods"])]


def _acc(method: Mapping[str, Any]) -> float | None:
    return method["mean"]["acc"]


def _scored(methods: Methods) -> dict[str, float]:
    return {name: acc for name, method in methods.items() if (acc := _acc(method)) is not None}


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _told(method: Mapping[str, Any]) -> str:
    return spread(percent, method["mean"]["acc"], method["std"]["acc"])


def _best(methods: Methods) -> Iterator[str]:
    accs = _scored(methods)
    if not accs:
        return
    highest = max(accs, key=accs.__getitem__)
    top = [highest, *(name for name, acc in accs.items() if name != highest and not ahead(accs[highest] - acc))]
    yield f"Highest ACC: {_named(top)}, {_told(methods[top[0]])}."


def _bounds(methods: Methods) -> Iterator[str]:
    """Whether anything is above both upper bounds."""
    accs = _scored(methods)
    bounds = [name for name in ("joint", "separate_lora") if name in accs]
    if not bounds:
        return
    limit = max(accs[name] for name in bounds)
    above = [name for name, acc in accs.items() if ahead(acc - limit)]
    yield f"Above {' and '.join(f'`{name}`' for name in bounds)}: {_named(above)}."


def _to_separate(methods: Methods) -> Iterator[str]:
    if not {"shared_a", "separate_lora"} <= methods.keys():
        return
    ours, other = ({run["seed"]: run["acc"] for run in methods[name]["runs"]} for name in ("shared_a", "separate_lora"))
    differences = [ours[seed] - other[seed] for seed in ours if seed in other]
    if differences:
        deviation = float(np.std(differences, ddof=1)) if len(differences) > 1 else None
        told = spread(percent, float(np.mean(differences)), deviation)
        yield f"`shared_a` minus `separate_lora`: {told} points{', seed by seed' if deviation is not None else ''}."


def _forgetting(methods: Methods) -> Iterator[str]:
    if "shared_a" not in methods:
        return
    method = methods["shared_a"]
    told = spread(percent, method["mean"]["forgetting"], method["std"]["forgetting"])
    changed = [run.get("extra", {}).get("tasks_with_changed_logits") for run in method["runs"]]
    bits = "" if None in changed else f"; tasks with a test logit that changed in any bit: {max(changed)}"
    yield f"Forgetting of `shared_a`: {told} points{bits}."


def _errors(methods: Methods) -> Iterator[str]:
    """The most that merging has changed an update by, and what was proven of it."""
    if "share" not in methods:
        return
    found = [run.get("extra", {}) for run in methods["share"]["runs"]]
    if all(run.get("measured_error") and run.get("error_bound") for run in found):
        most, bound = (max(max(run[key].values()) for run in found) for key in ("measured_error", "error_bound"))
        told = f"at most {percent(most)} %, proven: at most {percent(bound)} %"
        yield f"Error of an update under `share`, of any task with any seed: {told}."


def _sequential(methods: Methods) -> Iterator[str]:
    accs = _scored(methods)
    if accs.get("shared_a") and "sequential_lora" in accs:
        share = percent(accs["sequential_lora"] / accs["shared_a"])
        chance = accs.get("majority", 0.0)
        above = ""
        if chance and accs["shared_a"] > chance:
            rest = percent((accs["sequential_lora"] - chance) / (accs["shared_a"] - chance))
            above = f"; counted above `majority`, with {rest} %"
        yield f"`sequential_lora` ends with {share} % of the ACC of `shared_a`{above}."


def _floor(methods: Methods) -> Iterator[str]:
    accs = _scored(methods)
    if "majority" in accs:
        below = [name for name, acc in accs.items() if name != "majority" and not ahead(acc - accs["majority"])]
        yield f"Not above `majority` ({percent(accs['majority'])}): {_named(below)}."


def _below_frozen_head(methods: Methods) -> Iterator[str]:
    """Which methods a linear head on the frozen model beats, and by how much."""
    accs = _scored(methods)
    if "frozen_head" in accs:
        limit = accs["frozen_head"]
        below = {name: limit - acc for name, acc in accs.items() if name != "majority" and ahead(limit - acc)}
        told = ", ".join(f"`{name}` by {percent(points)}" for name, points in below.items()) or "none"
        yield f"Below `frozen_head` ({percent(limit)}), in points: {told}."


def _ahead(methods: Methods) -> Iterator[str]:
    others = _others(methods)
    for name in (each for each in OURS if each in methods and others):
        margins = {other: margin(methods[name], methods[other]).points for other in others}
        behind = [other for other, points in margins.items() if ahead(-points)]
        passed = [other for other, points in margins.items() if ahead(points)]
        level = [other for other in others if other not in (*behind, *passed)]
        equal = f"; level with {_named(level)}" if level else ""
        yield f"By mean ACC `{name}` is ahead of {_named(passed)}; behind {_named(behind)}{equal}."


def _others(methods: Methods) -> list[str]:
    return [name for name in methods if name not in APART and _acc(methods[name]) is not None]


def margins_table(methods: Methods) -> str:
    """How far ours are ahead of every other method, as a Markdown table; empty if there is nothing to hold together."""
    ours, others = [name for name in OURS if name in methods], _others(methods)
    if not ours or not others:
        return ""
    head = ["ahead of", *(part for name in ours for part in (f"`{name}`, points", "deviations"))]
    return table(head, [(f"`{other}`", *_cells(methods, ours, other)) for other in others])


def _cells(methods: Methods, ours: Sequence[str], other: str) -> Iterator[str]:
    for name in ours:
        found = margin(methods[name], methods[other])
        yield percent(found.points)
        yield DASH if found.deviations is None else f"{found.deviations:.1f}"
