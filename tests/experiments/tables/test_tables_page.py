"""The tables' page and the page of short tables, from results made by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.report.results import MethodResult, Results, Run, to_json
from experiments.tables.facts import Margin, facts, margin
from experiments.tables.headline import SHOWN, write_headline
from experiments.tables.markers import between, marked, replaced
from experiments.tables.page import Section, methods_table, render
from experiments.tables.public import FIGURES
from experiments.tables.write import check_page, write_section
from share_jax.errors import FormatError

PARAMS = {
    "base": 1000,
    "shared": 40,
    "per_task": 20,
    "heads_per_task": 4,
    "total_tasks": 80,
    "separate_lora_total": 120,
    "ratio_to_separate": 80 / 120,
    "ratio_to_separate_with_heads": 88 / 128,
}
NO_ADAPTER = {**PARAMS, "shared": 0, "per_task": 0, "total_tasks": 0, "separate_lora_total": 0}
NO_ADAPTER |= {"ratio_to_separate": None, "ratio_to_separate_with_heads": None}
VERSIONS = {"python": "3.11", "jax": "0.9", "platform": "cpu"}


BLOCK = "results:headline"


def method(name: str, lasts: list[tuple[float, float]], first: float = 0.9, extra: dict | None = None) -> MethodResult:
    """Two tasks; of each seed the accuracies after the last task, the first task's own accuracy being `first`."""
    runs = tuple(
        Run(seed, [[first, 0.1], list(last)], [0.5, 0.5], {"train": 2.0 + seed}, extra or {})
        for seed, last in enumerate(lasts)
    )
    params = NO_ADAPTER if name in ("majority", "frozen_head") else PARAMS
    if name == "share":
        params = {**PARAMS, "trained_per_later_task": 12}
    return MethodResult(name, runs, params, {})


def results(experiment: str, protocol: str, *methods: MethodResult) -> dict[str, Any]:
    made = Results(experiment, "default", protocol, ("a", "b"), methods, f"python -m experiments.run {experiment}")
    return to_json(made, VERSIONS)


def task_results(experiment: str = "digits5") -> dict[str, Any]:
    same = {"tasks_with_changed_logits": 0}
    errors = {"measured_error": {"a": 0.02, "b": 0.01}, "error_bound": {"a": 0.03, "b": 0.04}}
    return results(
        experiment,
        "task-incremental",
        method("shared_a", [(0.9, 0.8), (0.9, 0.9), (0.9, 1.0)], extra=same),
        method("share", [(0.88, 0.9)] * 3, extra=errors),
        method("separate_lora", [(0.9, 0.84), (0.9, 0.96), (0.9, 1.0)]),
        method("sequential_lora", [(0.3, 0.6), (0.3, 0.6), (0.3, 0.6)]),
        method("er_lora", [(0.7, 0.9), (0.9, 0.9), (0.8, 0.9)]),
        method("majority", [(0.5, 0.4)] * 3, first=0.5),
    )


def class_results() -> dict[str, Any]:
    extras = ({"router_accuracy": 0.75, "acc_with_task_id": 0.95, "acc_without_router": 0.5}, None)
    return results(
        "digits5",
        "class-incremental",
        method("shared_a", [(0.7, 0.7), (0.8, 0.8)], extra=extras[0]),
        method("sequential_lora", [(0.0, 0.9), (0.0, 0.9)]),
    )


def test_a_table_has_these_rows() -> None:
    lines = methods_table(task_results()).splitlines()
    assert lines[0] == (
        "| method | ACC | forgetting | retention | learning accuracy | BWT | of separate LoRAs | added per task | "
        "trained | seconds |"
    )
    assert lines[2] == (
        "| `shared_a` | 90.00 ± 5.00 | 0 ± 0 | 100.00 ± 0 | 90.00 ± 5.00 | 0 ± 0 | 0.667 | 20 | - | 3.0 |"
    )
    assert lines[3].endswith("| 0.667 | 20 | 12 | 3.0 |")
    assert lines[7] == "| `majority` | 45.00 ± 0 | 0 ± 0 | 100.00 ± 0 | 45.00 ± 0 | 0 ± 0 | - | 0 | - | 3.0 |"


def test_facts_are_computed_from_the_numbers() -> None:
    assert facts(task_results()) == [
        "Highest ACC: `separate_lora`, 91.67 ± 4.16.",
        "Above `separate_lora`: none.",
        "`shared_a` minus `separate_lora`: -1.67 ± 1.53 points, seed by seed.",
        "Forgetting of `shared_a`: 0 ± 0 points; tasks with a test logit that changed in any bit: 0.",
        "Error of an update under `share`, of any task with any seed: at most 2.00 %, proven: at most 4.00 %.",
        "`sequential_lora` ends with 50.00 % of the ACC of `shared_a`; counted above `majority`, with 0.00 %.",
        "Not above `majority` (45.00): `sequential_lora`.",
        "By mean ACC `shared_a` is ahead of `sequential_lora`, `er_lora`; behind `separate_lora`.",
        "By mean ACC `share` is ahead of `sequential_lora`, `er_lora`; behind `separate_lora`.",
    ]


def test_what_a_linear_head_on_the_frozen_model_beats_is_named_with_its_margin() -> None:
    found = task_results()
    found["methods"] |= results("digits5", "task-incremental", method("frozen_head", [(0.9, 0.85)] * 3))["methods"]
    told = "Below `frozen_head` (87.50), in points: `sequential_lora` by 42.50, `er_lora` by 2.50."
    assert told in facts(found)
    assert facts(found).index(told) == facts(found).index("Not above `majority` (45.00): `sequential_lora`.") + 1
    best = results("digits5", "task-incremental", *(method(name, [(0.9, 0.9)]) for name in ("frozen_head", "o_lora")))
    assert "Below `frozen_head` (90.00), in points: none." in facts(best)
    assert not any("Below `frozen_head`" in fact for fact in facts(task_results()))


def test_less_than_half_a_hundredth_of_a_point_is_level() -> None:
    """What is written as a margin of 0.00 is neither ahead nor behind."""
    lasts = {"shared_a": 0.9, "frozen_head": 0.90008, "separate_lora": 0.89992, "joint": 0.90012, "o_lora": 0.89988}
    found = results("digits5", "task-incremental", *(method(name, [(0.9, last)]) for name, last in lasts.items()))
    told = facts(found)
    assert told[0] == "Highest ACC: `joint`, `frozen_head`, 90.01."
    assert "Above `joint` and `separate_lora`: none." in told
    assert "Below `frozen_head` (90.00), in points: `separate_lora` by 0.01, `o_lora` by 0.01." in told
    assert told[-1] == (
        "By mean ACC `shared_a` is ahead of `o_lora`; behind `joint`; level with `frozen_head`, `separate_lora`."
    )


def test_a_margin_is_in_pooled_deviations() -> None:
    found = task_results()["methods"]
    ours, other = (np.array([run["acc"] for run in found[name]["runs"]]) for name in ("shared_a", "er_lora"))
    pooled = np.sqrt((ours.var(ddof=1) + other.var(ddof=1)) / 2)
    measured = margin(found["shared_a"], found["er_lora"])
    assert measured.points == pytest.approx(0.05)
    assert measured.deviations == pytest.approx(0.05 / pooled)
    assert margin(found["share"], found["sequential_lora"]) == Margin(pytest.approx(0.44), None)
    one = results("digits5", "task-incremental", method("a", [(0.9, 0.9)]), method("b", [(0.8, 0.9)]))["methods"]
    assert margin(one["a"], one["b"]) == Margin(pytest.approx(0.05), None)


def test_protocols_are_never_in_one_table() -> None:
    found = {"digits5-task": task_results(), "digits5-class": class_results(), "digits5-domain": None}
    text = render(Section("small", "python -m experiments.tables small", found))
    assert "Not run yet with these settings: digits5-domain." in text
    assert re.findall(r"^### .*", text, re.MULTILINE) == [
        "### digits5, task-incremental",
        "### digits5, class-incremental",
    ]
    of_tasks, of_classes = text.split("### ")[1:]
    assert of_tasks.count("| `er_lora` | 85.00") == 1
    assert "er_lora" not in of_classes
    assert "| method | ACC | router | ACC with id | ACC without router | forgetting |" in of_classes
    assert "| `shared_a` | 75.00 ± 7.07 | 75.00 ± 0 | 95.00 ± 0 | 50.00 ± 0 |" in of_classes
    assert "| `sequential_lora` | 45.00 ± 0 | - | - | - |" in of_classes
    assert "router" not in of_tasks
    assert "- task-incremental: the id" in text
    assert "- domain-incremental" not in text
    assert "Preset default, seeds 0, 1, 2 or 0, 1. Mean ± sample deviation" in text
    assert "python 3.11, jax 0.9, platform cpu" in text


def test_a_section_sums_the_seconds_of_its_runs_and_does_not_call_them_wall_time() -> None:
    found = {"digits5-task": task_results(), "digits5-class": class_results(), "digits5-domain": None}
    # seed s takes 2 + s seconds: 6 methods with seeds 0 to 2, of which one is not timed, and 2 with seeds 0 and 1
    for run in found["digits5-task"]["methods"]["majority"]["runs"]:
        run["seconds"] = {}
    text = render(Section("small", "command", found))
    told = "Seconds of training and evaluation, preparing and compiling included, summed over 19 runs, each one method"
    assert f"{told} with one seed: 55. This is not the wall time of the command" in text
    for each in (found["digits5-task"], found["digits5-class"]):
        for run in (run for method in each["methods"].values() for run in method["runs"]):
            run["seconds"] = {}
    assert "Seconds of training" not in render(Section("small", "command", found))


def test_an_entry_of_its_own_question_says_why() -> None:
    found = {"digits5-task": task_results(), "digits5-task-rank_8": task_results()}
    text = render(Section("small", "command", found, {"digits5-task-rank_8": "Twice the rank."}))
    assert re.findall(r"^### .*", text, re.MULTILINE) == [
        "### digits5, task-incremental",
        "### digits5, task-incremental, rank 8",
    ]
    assert text.count("Twice the rank.") == 1
    assert text.index("Twice the rank.") > text.index("rank 8")


def test_every_stream_of_the_tables_says_what_is_public() -> None:
    from experiments.tables.entries import TABLES

    assert {entry.experiment for entries in TABLES.values() for entry in entries} == set(FIGURES)
    text = render(Section("small", "", {"digits5-task": task_results()}))
    assert f"Public figures: {FIGURES['digits5']}" in text


def test_one_table_leaves_the_others_section_and_what_stands_around(tmp_path: Path) -> None:
    page = tmp_path / "new" / "RESULTS.md"
    small = Section("small", "python -m experiments.tables small", {"digits5-task": task_results()})
    words = Section("text", "python -m experiments.tables text", {"clinc150-task": task_results("clinc150")})
    check_page(page, "small")
    write_section(page, small)
    first = page.read_text()
    assert first.index("### digits5") < first.index("## Text streams: CLINC150 and 20 Newsgroups\n\nNot run yet.")
    page.write_text(first.replace("# Results", "# Results of ours"))
    write_section(page, words)
    both = page.read_text()
    assert "# Results of ours" in both
    assert (
        both.split("<!-- /results:small -->")[0]
        == first.replace("# Results", "# Results of ours").split("<!-- /results:small -->")[0]
    )
    assert "### clinc150, task-incremental" in both
    write_section(page, words)
    write_section(page, small)
    assert page.read_text() == both
    page.write_text(both.replace("<!-- /results:text -->", ""))
    with pytest.raises(FormatError, match="got 1 of the first and 0 of the second"):
        check_page(page, "text")
    check_page(page, "small")


def test_markers_in_the_wrong_order_are_refused() -> None:
    page = "<!-- /a -->\n<!-- a -->"
    assert marked(page, "a")
    with pytest.raises(FormatError, match="RESULTS: got the second first, expected <!-- a --> and then <!-- /a -->"):
        replaced(page, "a", "", "RESULTS")


def test_the_short_tables_are_written_once_both_are_there(tmp_path: Path) -> None:
    page = tmp_path / "index.md"
    page.write_text(f"before\n\n{between(BLOCK, 'old')}\n\nafter\n")
    assert not write_headline(page, "command", {"clinc150-task": task_results("clinc150")})
    assert "old" in page.read_text()
    found = {name: task_results(name) for name in SHOWN[BLOCK]}
    assert write_headline(page, "python -m experiments.tables text --data-folder FOLDER", found)
    text = page.read_text()
    assert text.startswith("before\n\n<!-- results:headline -->\n\n**CLINC150**, ten domains of 15 intents, mean ±")
    assert text.endswith("\n\n<!-- /results:headline -->\n\nafter\n")
    assert (
        text.count("| method | ACC | forgetting | retention | adapter parameters | of separate LoRAs | with heads |")
        == 2
    )
    assert "| `shared_a` | 90.00 ± 5.00 | 0 ± 0 | 100.00 ± 0 | 80 | 0.667 | 0.688 |" in text
    assert "| `majority` | 45.00 ± 0 | 0 ± 0 | 100.00 ± 0 | 0 | - | - |" in text
    assert "| `er_lora` | " in text
    page.write_text("no markers")
    assert not write_headline(page, "command", found)
    assert page.read_text() == "no markers"


@pytest.mark.parametrize("block", SHOWN)
def test_the_page_of_this_project_has_the_blocks(block: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks" / "index.md").read_text(encoding="utf-8")
    assert "between" in replaced(page, block, "between", "index.md")
