"""`results.json`: what a run found, as one strict JSON file from which every report can be made again.

The schema, version 1 (null stands for "not evaluated" or "undefined", NaN never occurs):

- `schema`: 1. `experiment`, `preset`, `protocol`: names. `command`: the command line that made the file.
- `tasks`: T task names in the order in which they were learnt. `metrics`: the metric of each, a name of
  `experiments.task_metrics`; accuracy where the file has none. What is called accuracy below is the task's own
  metric, which may be below 0 for correlations, and for `bits_saved`, which is 1 - (bits per byte) / 8. `seeds`: every
  seed that any method ran with.
- `methods`: by name, in the order of the run:
    - `runs`: one per seed: `seed`; `accuracy_matrix` (T rows of T, row i after task i); `untrained` (T
      accuracies of the untrained model); the measures of `share_jax.metrics.NAMES`; `seconds` by phase, of which
      `total`, if present, is the whole (else the phases add up to it) and `task 1`, `task 2`, ... single tasks;
      `extra`: further findings, among them
      `tasks_with_changed_logits`, how many tasks' test logits differ in any bit from when the task was learnt; of
      texts by task `bits_per_byte_frozen`, `bits_per_byte_learnt`, `bits_per_byte_last` and `gain_kept`, with its
      mean `mean_gain_kept` (see `experiments.report.gains`).
    - `mean`, `std`: the same measures and `seconds` over the runs; `std` is the sample deviation (n - 1), null
      with one run. A measure that is undefined in any run is null in both.
    - `params`: numbers of parameters. `base`: frozen model; `shared`: adapters, common to all tasks; `per_task`:
      adapters, one task; `heads_per_task`; `total_tasks`: adapters, all tasks, without heads;
      `separate_lora_total`: T separate LoRAs; `ratio_to_separate`: the last two's quotient. More keys may stand
      beside them, `ratio_to_separate_with_heads` (heads of all tasks on both sides), `ratio_to_base` and `head_sets`
      (how many heads are held: 1 where all tasks share one) among them.
    - `bytes`: sizes by name, of files or of arrays.
- `versions`: of the software, with `platform` and `device_kind`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.report.gains import with_gains
from experiments.report.schema import PARAMS, PROTOCOLS, SCHEMA, validate
from experiments.report.versions import versions as installed_versions
from experiments.task_metrics import lowest as lowest_of
from share_jax import metrics
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.atomic_write import replace_text


@dataclass(frozen=True, eq=False)
class Run:
    """One method with one seed.

    Attributes:
        seed: what seeded it.
        accuracy: (T, T) fractions, row i after task i, nan where not evaluated.
        untrained: (T,) fractions of the untrained model, nan where not evaluated.
        seconds: wall time by phase; the key `total`, if given, is the whole.
        extra: further findings of the run as JSON, such as `tasks_with_changed_logits`.
    """

    seed: int
    accuracy: ArrayLike
    untrained: ArrayLike
    seconds: Mapping[str, float]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method's runs, its parameter counts (at least the keys of `schema.PARAMS`) and its sizes in bytes."""

    name: str
    runs: tuple[Run, ...]
    params: Mapping[str, int | float | None]
    bytes: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that one experiment found; `protocol` begins with one of `schema.PROTOCOLS`.

    `metrics` has one of `experiments.task_metrics` for each task; accuracy for all where it is empty.
    """

    experiment: str
    preset: str
    protocol: str
    task_names: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    command: str
    metrics: tuple[str, ...] = ()


def to_json(results: Results, versions: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """The content of `results.json`, as plain data in a stable order.

    Args:
        results: what was run.
        versions: what `versions` will hold; by default what is installed and the device in use.

    Raises:
        InputError: a shape, an accuracy outside 0 to 1, a repeated name or seed, a missing count, an unknown protocol.
    """
    if not results.protocol.startswith(PROTOCOLS):
        raise _refuse("protocol", repr(results.protocol), f"one of {', '.join(PROTOCOLS)}")
    _distinct("methods", [method.name for method in results.methods])
    _distinct("task names", results.task_names)
    tasks = len(results.task_names)
    if results.metrics and len(results.metrics) != tasks:
        raise _refuse("metrics", f"{len(results.metrics)}", f"{tasks}, one for each task")
    lowest = np.array([lowest_of(name) for name in results.metrics] or [0.0] * tasks)
    methods = {method.name: _method(method, lowest) for method in results.methods}
    methods = with_gains(methods, results.task_names, results.metrics)
    seeds = dict.fromkeys(run.seed for method in results.methods for run in method.runs)
    return {
        "schema": SCHEMA,
        "experiment": results.experiment,
        "preset": results.preset,
        "protocol": results.protocol,
        "command": results.command,
        "tasks": list(results.task_names),
        **({"metrics": list(results.metrics)} if results.metrics else {}),
        "seeds": [int(seed) for seed in seeds],
        "methods": methods,
        "versions": dict(installed_versions() if versions is None else versions),
    }


def write_results(results: Results, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Writes `results.json` at once (a reader sees the old file or the new one) and returns its content.

    Raises:
        InputError: as `to_json`.
    """
    target = Path(path)
    content = to_json(results)
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_text(text + "\n", target)
    return content


def load_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a `results.json` and holds it against the schema.

    Raises:
        FormatError: the file cannot be read, is not strict JSON, or is not of this schema; names the place.
    """
    name = Path(path).name
    fix = "give the results.json that a run wrote"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise FormatError(message(str(path), got=got, expected="a readable file", fix=fix)) from None
    except (ValueError, RecursionError) as error:
        got = str(error).splitlines()[0]
        raise FormatError(message(name, got=got, expected="strict JSON in UTF-8", fix=fix)) from None
    validate(content, name)
    return content


def task_key(number: int) -> str:
    """The key in `seconds` of a task's wall time, tasks counted from 1.

    >>> task_key(3)
    'task 3'
    """
    return f"task {number}"


def run_seconds(seconds: Mapping[str, float | None]) -> float | None:
    """Whole wall time of a run: `total` if it is there, else the sum of the phases; None if nothing was timed.

    >>> run_seconds({"train": 2.0, "evaluate": 0.5}), run_seconds({"total": 3.0, "train": 2.0})
    (2.5, 3.0)
    """
    known = [value for value in seconds.values() if value is not None]
    return seconds["total"] if "total" in seconds else sum(known) if known else None


def total_seconds(method: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Mean and sample deviation of the whole wall time over the runs of one method of a loaded file."""
    totals = [run_seconds(run["seconds"]) for run in method["runs"]]
    return _mean(totals), _deviation(totals)


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean and sample deviation of the measures and times of a loaded file's runs, null where any is undefined."""
    kept = [{key: run[key] for key in (*metrics.NAMES, "seconds") if key in run} for run in runs]
    return _over_runs(kept, _mean), _over_runs(kept, _deviation)


def task_names(results: Mapping[str, Any]) -> list[str]:
    """The tasks' names of a loaded file, or `task 1`, `task 2`, ... where it has none."""
    first = next(iter(results["methods"].values()))
    tasks = len(first["runs"][0]["accuracy_matrix"])
    return list(results.get("tasks") or [f"task {i + 1}" for i in range(tasks)])


def mean_matrix(method: Mapping[str, Any]) -> np.ndarray:
    """(T, T) accuracies averaged over the runs of one method of a loaded file, nan where any was not evaluated."""
    return np.mean([matrix_of(run) for run in method["runs"]], axis=0)


def matrix_of(run: Mapping[str, Any]) -> np.ndarray:
    """(T, T) accuracies of one run of a loaded file, nan for null."""
    return np.array(run["accuracy_matrix"], dtype=np.float64)


def _method(method: MethodResult, lowest: np.ndarray) -> dict[str, Any]:
    what = f"method {method.name}"
    _distinct(f"{what}: seeds", [run.seed for run in method.runs])
    missing = [key for key in PARAMS if key not in method.params]
    if missing:
        raise _refuse(f"{what}: params", f"no {', '.join(missing)}", f"the keys {', '.join(PARAMS)}")
    runs = [_run(run, lowest, f"{what}, seed {run.seed}") for run in method.runs]
    mean, deviation = over_seeds(runs)
    return {
        "runs": runs,
        "mean": mean,
        "std": deviation,
        "params": {key: _number(value, f"{what}: params.{key}") for key, value in method.params.items()},
        "bytes": {key: _number(value, f"{what}: bytes.{key}") for key, value in method.bytes.items()},
    }


def _run(run: Run, lowest: np.ndarray, what: str) -> dict[str, Any]:
    accuracy = _fractions(run.accuracy, (len(lowest), len(lowest)), lowest, f"{what}: accuracy")
    untrained = _fractions(run.untrained, (len(lowest),), lowest, f"{what}: untrained")
    return {
        "seed": int(run.seed),
        "accuracy_matrix": [_nulls(row) for row in accuracy],
        "untrained": _nulls(untrained),
        **metrics.summarize(accuracy, untrained),
        "seconds": {key: _number(value, f"{what}: seconds.{key}") for key, value in run.seconds.items()},
        "extra": _findings(run.extra, f"{what}: extra"),
    }


def _fractions(values: ArrayLike, shape: tuple[int, ...], lowest: np.ndarray, what: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise _refuse(what, f"a {type(values).__name__}", f"numbers of shape {shape}") from None
    if array.shape != shape:
        raise _refuse(what, f"shape {array.shape}", f"{shape}, one row and column per task name")
    outside = array[(array < np.broadcast_to(lowest, shape)) | (array > 1)]
    if outside.size:
        raise _refuse(what, f"{outside[0]:g}", "fractions from 0 to 1, nan where not evaluated")
    return array


def _findings(extra: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(extra), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise _refuse(what, str(error).splitlines()[0], "strict JSON") from None


def _nulls(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _number(value: Any, what: str) -> int | float | None:
    if value is None:
        return None
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
        raise _refuse(what, repr(value), "a finite number of at least 0, or None")
    return number


def _over_runs(runs: Sequence[Mapping[str, Any]], reduce: Any) -> dict[str, Any]:
    """Reduces every key over the runs, those of nested mappings too; a key that some run lacks is null."""
    keys = dict.fromkeys(key for run in runs for key in run)
    reduced: dict[str, Any] = {}
    for key in keys:
        values = [run.get(key) for run in runs]
        nested = any(isinstance(value, Mapping) for value in values)
        reduced[key] = _over_runs([value or {} for value in values], reduce) if nested else reduce(values)
    return reduced


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(values) and len(known) > 1 else None


def _distinct(what: str, names: Sequence[Any]) -> None:
    if not names:
        raise _refuse(what, "none", "at least one")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise _refuse(what, f"{twice[0]!r} more than once", "each only once")


def _refuse(what: str, got: str, expected: str) -> InputError:
    return InputError(message(what, got=got, expected=expected, fix="fix what is handed to the report"))


def _no_constant(name: str) -> float:
    raise ValueError(f"the constant {name}")
