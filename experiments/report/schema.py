"""The schema of `results.json`, held against a loaded file: the first contradiction is named with its place."""

from collections.abc import Callable, Sequence
from typing import Any

from experiments.metrics import CORRELATIONS
from share_jax.errors import FormatError, message
from share_jax.metrics import NAMES as MEASURES

SCHEMA = 1
PROTOCOLS = ("task-incremental", "domain-incremental", "class-incremental")
"""How a task is known at test time: its id is given; one head and no id; one growing head and no id."""

PARAMS = (
    "base",
    "shared",
    "per_task",
    "heads_per_task",
    "total_tasks",
    "separate_lora_total",
    "ratio_to_separate",
)
"""Counts that every method's `params` holds."""

OPTIONAL_MEASURES = ("average_incremental_accuracy",)

Check = Callable[[Any, str], None]


def validate(content: Any, name: str) -> None:
    """Holds the content of a file called `name` against schema 1.

    Raises:
        FormatError: one line that names the first place where the content is not what the schema says.
    """
    _mapping(content, name)
    if content.get("schema") != SCHEMA or isinstance(content.get("schema"), bool):
        raise _refuse(f"{name}: schema", content.get("schema"), str(SCHEMA))
    for key in ("experiment", "preset", "protocol"):
        _field(content, key, _text, name)
    _field(content, "command", _text, name, optional=True)
    _field(content, "tasks", _list_of(_text), name, optional=True)
    _field(content, "metrics", _list_of(_text), name, optional=True)
    _field(content, "seeds", _list_of(_whole), name)
    _field(content, "versions", _mapping_of(_text_or_null), name)
    _field(content, "methods", _mapping, name)
    if not content["methods"]:
        raise _tell(f"{name}: methods", "none", "at least one")
    sizes = {method: _method(value, f"{name}: methods.{method}") for method, value in content["methods"].items()}
    sizes |= {key: len(content[key]) for key in ("tasks", "metrics") if key in content}
    if len(set(sizes.values())) > 1:
        raise _refuse(f"{name}: number of tasks", sizes, "the same everywhere")
    _signs(content, name)


def _signs(content: dict[str, Any], name: str) -> None:
    """Only correlations may be below 0."""
    metrics = content.get("metrics", [])
    for method, found in content["methods"].items():
        for index, run in enumerate(found["runs"]):
            rows = [*run["accuracy_matrix"], run.get("untrained", [])]
            for task, value in ((task, value) for row in rows for task, value in enumerate(row)):
                if value is not None and value < 0 and (task >= len(metrics) or metrics[task] not in CORRELATIONS):
                    place = f"{name}: methods.{method}.runs[{index}], task {task + 1}"
                    raise _refuse(place, value, "a fraction from 0 to 1 or null")


def _method(method: Any, place: str) -> int:
    """Checks one method and returns its number of tasks."""
    _mapping(method, place)
    _field(method, "runs", _list_of(_run), place)
    _field(method, "params", _mapping_of(_number), place)
    _field(method, "bytes", _mapping_of(_number), place)
    for key in PARAMS:
        _field(method["params"], key, _number, f"{place}.params")
    for key in ("mean", "std"):
        _field(method, key, _measures, place)
    if not method["runs"]:
        raise _tell(f"{place}.runs", "none", "at least one")
    sizes = {len(run["accuracy_matrix"]) for run in method["runs"]}
    if len(sizes) > 1:
        raise _refuse(f"{place}.runs: number of tasks", sorted(sizes), "the same in every run")
    return sizes.pop()


def _run(run: Any, place: str) -> None:
    _mapping(run, place)
    _field(run, "seed", _whole, place)
    _field(run, "seconds", _mapping_of(_number), place)
    _field(run, "extra", _mapping, place, optional=True)
    _measures(run, place)
    _field(run, "accuracy_matrix", _list_of(_list_of(_fraction)), place)
    matrix = run["accuracy_matrix"]
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        lengths = f"{len(matrix)} rows of {sorted({len(row) for row in matrix})}"
        raise _tell(f"{place}.accuracy_matrix", lengths, "a square")
    _field(run, "untrained", _list_of(_fraction), place, optional=True)
    if len(run.get("untrained", matrix)) != len(matrix):
        raise _tell(f"{place}.untrained", f"{len(run['untrained'])} values", f"{len(matrix)}")


def _measures(values: Any, place: str) -> None:
    _mapping(values, place)
    for key in MEASURES:
        _field(values, key, _number, place, optional=key in OPTIONAL_MEASURES)
    _field(values, "seconds", _mapping_of(_number), place, optional=True)


def _field(parent: dict[str, Any], key: str, check: Check, place: str, optional: bool = False) -> None:
    if key in parent:
        check(parent[key], _join(place, key))
    elif not optional:
        raise _tell(_join(place, key), "nothing", "the field")


def _mapping(value: Any, place: str) -> None:
    if not isinstance(value, dict):
        raise _refuse(place, value, "an object")


def _text(value: Any, place: str) -> None:
    if not isinstance(value, str):
        raise _refuse(place, value, "a string")


def _text_or_null(value: Any, place: str) -> None:
    if value is not None:
        _text(value, place)


def _whole(value: Any, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(place, value, "a whole number")


def _number(value: Any, place: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) == float("inf"):
        raise _refuse(place, value, "a finite number or null")


def _fraction(value: Any, place: str) -> None:
    _number(value, place)
    if value is not None and not -1 <= value <= 1:
        raise _refuse(place, value, "a fraction from 0 to 1 or null")


def _list_of(check: Check) -> Check:
    def check_list(value: Any, place: str) -> None:
        if not isinstance(value, list):
            raise _refuse(place, value, "a list")
        for index, item in enumerate(value):
            check(item, f"{place}[{index}]")

    return check_list


def _mapping_of(check: Check) -> Check:
    def check_mapping(value: Any, place: str) -> None:
        _mapping(value, place)
        for key, item in value.items():
            check(item, _join(place, key))

    return check_mapping


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if ": " in place else f"{place}: {key}"


def _refuse(place: str, value: Any, expected: str) -> FormatError:
    return _tell(place, _short(value), expected)


def _tell(place: str, got: str, expected: str) -> FormatError:
    return FormatError(message(place, got=got, expected=expected, fix="give the results.json that a run wrote"))


def _short(value: Any, limit: int = 60) -> str:
    """One line that shows what a value is, however large."""
    if isinstance(value, Sequence | dict) and not isinstance(value, str) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
