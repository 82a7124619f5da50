"""The schema of `results.json`, held against a loaded file: the first contradiction is named with its place."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from experiments.task_metrics import lowest
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

_Node = Mapping[str, Any]
_TEXT = {"type": "string", "description": "a string"}
_WHOLE = {"type": "integer", "description": "a whole number"}
_NUMBER = {"type": ["number", "null"], "description": "a finite number or null"}
_FRACTION = {**_NUMBER, "maximum": 1, "description": "a fraction from 0 to 1 or null"}
_OBJECT = {"type": "object", "description": "an object"}
_NUMBERS = {**_OBJECT, "additionalProperties": _NUMBER}


def _list_of(node: _Node, least: int = 0) -> _Node:
    return {"type": "array", "description": "a list", "items": node, "minItems": least}


def _record(nodes: Mapping[str, _Node], optional: Sequence[str] = ()) -> _Node:
    return {**_OBJECT, "required": [key for key in nodes if key not in optional], "properties": nodes}


_MEASURES = {**dict.fromkeys(MEASURES, _NUMBER), "seconds": _NUMBERS}
_RUN = {
    "seed": _WHOLE,
    "extra": _OBJECT,
    **_MEASURES,
    "accuracy_matrix": _list_of(_list_of(_FRACTION)),
    "untrained": _list_of(_FRACTION),
}
_SUMMARY = _record(_MEASURES, (*OPTIONAL_MEASURES, "seconds"))
_METHOD = {
    "runs": _list_of(_record(_RUN, (*OPTIONAL_MEASURES, "extra", "untrained")), least=1),
    "params": {**_NUMBERS, "required": PARAMS},
    "bytes": _NUMBERS,
    "mean": _SUMMARY,
    "std": _SUMMARY,
}
_DOCUMENT = {
    **dict.fromkeys(("experiment", "preset", "protocol", "command"), _TEXT),
    "tasks": _list_of(_TEXT),
    "metrics": _list_of(_TEXT),
    "seeds": _list_of(_WHOLE),
    "versions": {**_OBJECT, "additionalProperties": {**_TEXT, "type": ["string", "null"]}},
    "methods": {**_OBJECT, "minProperties": 1, "additionalProperties": _record(_METHOD)},
}
DOCUMENT = _record(_DOCUMENT, ("command", "tasks", "metrics"))
"""Schema 1 as a JSON Schema; `description` is what an error says was expected."""


def _whole(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(checker: Any, value: Any) -> bool:
    return _whole(checker, value) or (isinstance(value, float) and abs(value) < float("inf"))


_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _whole, "number": _finite})
_VALIDATOR = extend(Draft202012Validator, type_checker=_TYPES)(DOCUMENT)


def validate(content: Any, name: str) -> None:
    """Holds the content of a file called `name` against schema 1.

    Raises:
        FormatError: one line that names the first place where the content is not what the schema says.
    """
    if isinstance(content, dict) and (content.get("schema") != SCHEMA or isinstance(content["schema"], bool)):
        raise _refuse(f"{name}: schema", content.get("schema"), str(SCHEMA))
    for error in _VALIDATOR.iter_errors(content):
        raise _contradiction(error, name)
    sizes = {method: _tasks_of(value, f"{name}: methods.{method}") for method, value in content["methods"].items()}
    sizes |= {key: len(content[key]) for key in ("tasks", "metrics") if key in content}
    if len(set(sizes.values())) > 1:
        raise _refuse(f"{name}: number of tasks", sizes, "the same everywhere")
    _signs(content, name)


def _contradiction(error: ValidationError, name: str) -> FormatError:
    keys = list(error.absolute_path)
    if error.validator == "required":
        wanted: Any = error.validator_value
        return _tell(
            _place(name, [*keys, next(key for key in wanted if key not in error.instance)]), "nothing", "the field"
        )
    if error.validator in ("minItems", "minProperties"):
        return _tell(_place(name, keys), "none", "at least one")
    return _refuse(_place(name, keys), error.instance, error.schema["description"])  # pyright: ignore[reportIndexIssue]


def _place(name: str, keys: Sequence[str | int]) -> str:
    """Where in the file, such as `results.json: methods.joint.runs[0]`."""
    parts = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return f"{name}: {parts[1:]}" if parts else name


def _tasks_of(method: Mapping[str, Any], place: str) -> int:
    """The number of tasks of a method's runs: each has a square matrix, and they agree."""
    for index, run in enumerate(method["runs"]):
        matrix = run["accuracy_matrix"]
        if not matrix or any(len(row) != len(matrix) for row in matrix):
            lengths = f"{len(matrix)} rows of {sorted({len(row) for row in matrix})}"
            raise _tell(f"{place}.runs[{index}].accuracy_matrix", lengths, "a square")
        if len(run.get("untrained", matrix)) != len(matrix):
            raise _tell(f"{place}.runs[{index}].untrained", f"{len(run['untrained'])} values", f"{len(matrix)}")
    sizes = {len(run["accuracy_matrix"]) for run in method["runs"]}
    if len(sizes) > 1:
        raise _refuse(f"{place}.runs: number of tasks", sorted(sizes), "the same in every run")
    return sizes.pop()


def _signs(content: dict[str, Any], name: str) -> None:
    """Only some metrics may be below 0, correlations down to -1."""
    metrics = content.get("metrics", [])
    for method, found in content["methods"].items():
        for index, run in enumerate(found["runs"]):
            rows = [*run["accuracy_matrix"], run.get("untrained", [])]
            for task, value in ((task, value) for row in rows for task, value in enumerate(row)):
                if value is not None and value < (lowest(metrics[task]) if task < len(metrics) else 0):
                    place = f"{name}: methods.{method}.runs[{index}], task {task + 1}"
                    raise _refuse(place, value, "a fraction from 0 to 1 or null")


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
