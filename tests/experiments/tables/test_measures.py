"""The columns of a job's table, by what the job is measured in."""

from experiments.report.gains import with_gains
from experiments.tables.measures import measures_of


def method(*extras: dict, acc: float = 0.5) -> dict:
    return {"mean": {"acc": acc, "forgetting": 0.25}, "std": {"acc": None, "forgetting": None},
            "runs": [{"extra": each} for each in extras]}  # fmt: skip


def cells(results: dict, name: str) -> dict[str, str]:
    return {measure.head: measure.cell(results["methods"][name]) for measure in measures_of(results)[1]}


def test_accuracy_and_forgetting() -> None:
    results = {"metrics": ["exact_match"], "methods": {"shared_a": method({})}}
    assert measures_of(results)[0] == "exact match after the last task in percent, forgetting in points"
    assert cells(results, "shared_a") == {"exact match": "50.00", "forgetting": "25.00"}


def test_what_is_right_without_the_id_has_a_column_where_any_method_tells_it() -> None:
    told = {"acc_with_router": 0.4}
    results = {"methods": {"shared_a": method(told, {"acc_with_router": 0.2}), "frozen": method({})}}
    assert list(cells(results, "shared_a")) == ["accuracy", "without the id", "forgetting"]
    assert cells(results, "shared_a")["without the id"].startswith("30.00")
    assert cells(results, "frozen")["without the id"] == "-"


def test_texts_have_bits_gains_and_what_is_kept() -> None:
    matrix = {"frozen": [[0.5, None], [0.5, 0.5]], "sequential_lora": [[0.75, None], [0.625, 0.75]]}
    methods = {name: {"runs": [{"accuracy_matrix": rows}]} for name, rows in matrix.items()}
    results = {"metrics": ["bits_saved"] * 2, "methods": with_gains(methods, ["C", "Go"], ["bits_saved"] * 2)}
    assert cells(results, "sequential_lora") == {"bits per byte": "2.500", "gain": "2.000", "gain kept": "75.00"}
    assert cells(results, "frozen")["gain"] == "0.000"
    assert "bits per byte of the test texts" in measures_of(results)[0]
