"""What is kept of the gain in bits per byte, and the report's parts on language models."""

import math
from typing import Any

import numpy as np
import pytest

from experiments.report.gains import BITS_FROZEN, BITS_LAST, KEPT, MEAN_KEPT, with_gains
from experiments.report.token_sections import token_sections

NAN = None


def method(rows: list[list[float | None]], **extra: Any) -> dict[str, Any]:
    return {"runs": [{"seed": 0, "accuracy_matrix": rows, "extra": extra}]}


METHODS = {
    "learner": method([[0.75, NAN], [0.75, 0.5]], tasks_with_changed_logits=0),
    "forgetter": method([[0.75, NAN], [0.25, 0.5]]),
    "frozen": method([[0.5, NAN], [0.5, 0.5]]),
}


def test_a_gain_is_kept_whole_lost_or_unknown() -> None:
    found = with_gains(METHODS, ["C", "Java"], ["bits_saved", "bits_saved"])
    extra = {name: each["runs"][0]["extra"] for name, each in found.items()}
    assert extra["learner"][KEPT] == {"C": 1.0, "Java": None}, "Java was not learnt at all"
    assert extra["learner"]["tasks_with_changed_logits"] == 0
    assert extra["learner"][MEAN_KEPT] is None
    assert extra["forgetter"][KEPT]["C"] == -1.0
    assert extra["forgetter"][BITS_LAST] == {"C": 6.0, "Java": 4.0}
    assert extra["frozen"][BITS_FROZEN] == {"C": 4.0, "Java": 4.0}


def test_without_the_frozen_method_the_model_before_learning_is_what_is_gained_on() -> None:
    own = {"learner": {"runs": [{"accuracy_matrix": [[0.75]], "untrained": [0.25]}]}}
    assert with_gains(own, ["C"], ["bits_saved"])["learner"]["runs"][0]["extra"][KEPT] == {"C": 1.0}
    own = {"learner": {"runs": [{"accuracy_matrix": [[0.75]], "untrained": [None]}]}}
    assert with_gains(own, ["C"], ["bits_saved"])["learner"]["runs"][0]["extra"][KEPT] == {"C": None}
    own = {"learner": {"runs": [{"accuracy_matrix": [[0.75]]}]}}
    assert with_gains(own, ["C"], ["bits_saved"])["learner"]["runs"][0]["extra"][BITS_FROZEN] == {"C": None}


def test_tasks_of_other_metrics_have_no_bits() -> None:
    assert with_gains(METHODS, ["C", "Java"], []) == METHODS
    mixed = with_gains(METHODS, ["C", "Java"], ["bits_saved", "exact_match"])
    assert set(mixed["learner"]["runs"][0]["extra"][KEPT]) == {"C"}


def test_the_report_tells_of_bits_other_tests_and_answers_that_ran() -> None:
    methods = with_gains(METHODS, ["C", "Java"], ["bits_saved", "bits_saved"])
    methods["learner"]["runs"][0]["extra"] |= {
        "further": {"unseen_tables": {"C": 0.5, "Java": 0.25}},
        "exact_match": {"C": 0.5},
        "executed": {"test": {"C": {"right": 3, "asked": 16}}},
    }
    told = "\n".join(token_sections({"methods": methods}))
    assert "| C | 4.000 | 2.000 → 2.000 | 100.00 | 2.000 → 6.000 | -100.00 |" in told
    assert "## Test set unseen_tables" in told
    assert "| mean | 37.50 |" in told
    assert "| C | 3 of 16 |" in told
    assert not list(token_sections({"methods": METHODS}))


@pytest.mark.parametrize("saved", [1.0, -3.0])
def test_a_results_file_takes_what_costs_more_than_it_saves(saved: float) -> None:
    from report_results import PARAMS

    from experiments.report.results import MethodResult, Results, Run, to_json
    from experiments.report.schema import validate

    run = Run(0, np.array([[saved]]), np.array([math.nan]), {})
    results = Results("code", "quick", "task-incremental", ("C",), (MethodResult("a", (run,), PARAMS, {}),), "run",
                      ("bits_saved",))  # fmt: skip
    validate(to_json(results, {}), "results.json")
