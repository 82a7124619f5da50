"""What runs tell of their router, where each task has a slot of its own and no task id is given.

All are fractions, after the last task, the mean over the tasks:

- `acc`, with the router: each example is answered by the slot that the router chose for it. Of a language model `acc`
  is with the task's id, and this is `acc_with_router`.
- `router_accuracy`: how often that was the slot of the example's own task.
- `acc_with_task_id`: had the id been given, and each example been answered by its own task's slot.
- `acc_without_router`: by the last task's slot alone (domain-incremental), or by the highest logit of all heads side by
  side (class-incremental).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.report.blocks import spread
from experiments.report.cells import DASH, percent

ROUTER, WITH_ID, WITHOUT = FINDINGS = ("router_accuracy", "acc_with_task_id", "acc_without_router")
"""Keys of a run's `extra`; a method that is not routed has none of them."""

WITH_ROUTER = "acc_with_router"
"""The same of a language model alone, whose ACC is with the task's id."""


def routed(method: Mapping[str, Any]) -> bool:
    """Whether any run of a method tells of a router."""
    return any(key in run.get("extra", {}) for run in method["runs"] for key in FINDINGS)


def finding(method: Mapping[str, Any], key: str) -> str:
    """Mean and deviation of a finding over a method's runs; a dash if any run lacks it."""
    values = [run.get("extra", {}).get(key) for run in method["runs"]]
    if None in values:
        return DASH
    return spread(percent, float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)
