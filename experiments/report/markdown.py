"""One Markdown report of a run, made from its `results.json` alone."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.blocks import spread as _spread
from experiments.report.blocks import table as _table
from experiments.report.blocks import text as _text
from experiments.report.cells import DASH, count, exact, percent, ratio, seconds, size
from experiments.report.explain import HOW_TO_READ
from experiments.report.per_task import mean_forgetting, task_seconds, update_errors
from experiments.report.results import mean_matrix, task_names, total_seconds
from experiments.report.routing import ROUTER, WITH_ID, WITH_ROUTER, WITHOUT, finding, routed
from experiments.report.samples import samples_of, verdict
from experiments.report.token_sections import token_sections
from experiments.task_metrics import spoken

REPORT = "report.md"
MATRICES = "accuracy_matrix.png"
CURVE = "accuracy_over_tasks.png"

MEASURES = (
    ("ACC", "acc"),
    ("learning accuracy", "learning_accuracy"),
    ("BWT", "bwt"),
    ("FWT", "fwt"),
    ("forgetting", "forgetting"),
    ("retention", "retention"),
    ("average incremental accuracy", "average_incremental_accuracy"),
)


def write_report(results: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Writes `report.md` and the two figures it shows into `folder`, and returns the report's path.

    Args:
        results: the content of `results.json`, as `load_results` or `write_results` gives it.
        folder: made if it is not there.
    """
    from experiments.report.figures import plot_curve, plot_matrices

    path = Path(folder) / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_matrices(results, path.with_name(MATRICES))
    plot_curve(results, path.with_name(CURVE))
    path.write_text(render(results), encoding="utf-8")
    return path


def render(results: Mapping[str, Any], pictures: Mapping[str, Sequence[str]] | None = None) -> str:
    """The report as Markdown text.

    Args:
        results: the content of `results.json`.
        pictures: Markdown images by their place (curve, pareto, errors, forgetting, seconds, matrices); the two PNGs
            of `write_report` when None.
    """
    return "\n\n".join((*parts(results, PNG if pictures is None else pictures), *EXPLAINED)) + "\n"


PNG = {
    "curve": (f"![Mean accuracy over the tasks seen so far, a line per method]({CURVE})",),
    "matrices": (f"![Accuracy matrix of every method]({MATRICES})",),
}
EXPLAINED = ("## How to read the measures", HOW_TO_READ)


def parts(results: Mapping[str, Any], pictures: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """The report's blocks but for how to read them: headings, paragraphs, tables, images, one string each."""

    def shown(place: str) -> Iterable[str]:
        return ["\n".join(pictures[place])] if pictures.get(place) else []

    yield f"# {_text(results['experiment'])}, preset {_text(results['preset'])}"
    yield from _what_was_run(results)
    yield "## Results"
    yield from _measures(results)
    yield from _samples(results)
    yield from token_sections(results)
    yield from _router(results)
    yield "## Accuracy over the tasks seen so far"
    yield from shown("curve")
    yield "## Parameters and bytes"
    yield from shown("pareto")
    yield from _parameters(results)
    yield from _bytes(results)
    yield from _subspaces(results, shown("errors"))
    yield "## Tasks"
    yield from _tasks(results)
    yield from _forgetting(results, shown("forgetting"))
    yield from _seconds(results, shown("seconds"))
    yield "## Accuracy matrices"
    yield from shown("matrices")
    yield from _matrices(results)
    yield "## Versions"
    yield _table(("what", "version"), ((key, value or "not installed") for key, value in results["versions"].items()))


def _what_was_run(results: Mapping[str, Any]) -> Iterable[str]:
    names = task_names(results)
    seeds = ", ".join(map(str, results["seeds"]))
    yield (
        f"{len(names)} tasks learnt one after another by {len(results['methods'])} methods, "
        f"{'seed' if len(results['seeds']) == 1 else 'seeds'} {seeds}. "
        f"Protocol: **{_text(results['protocol'])}**; figures under another protocol are not to be compared with these."
    )
    metrics = results.get("metrics", ())
    own = {name: metric for name, metric in zip(names, metrics, strict=False) if metric != "accuracy"}
    if own and len(set(metrics)) == 1:
        yield f"Accuracy of a task, here and below, is its {spoken(metrics)}, and ACC the mean over the tasks."
    elif own:
        listed = ", ".join(f"{_text(metric)} for {_text(name)}" for name, metric in own.items())
        others = "" if len(own) == len(names) else "; accuracy for the others"
        yield f"Each task is scored by its own metric, and ACC is their mean: {listed}{others}."
    if results.get("command"):
        yield "```\n" + results["command"].replace("```", "'''") + "\n```"


def _measures(results: Mapping[str, Any]) -> Iterable[str]:
    several = len(results["seeds"]) > 1
    rows = []
    for name, method in results["methods"].items():
        cells = [_spread(percent, method["mean"].get(key), method["std"].get(key)) for _, key in MEASURES]
        ran = ", ".join(str(run["seed"]) for run in method["runs"])
        rows.append((_named(name, method, results), *cells, _spread(seconds, *total_seconds(method)), ran))
    yield _table(("method", *(label for label, _ in MEASURES), "seconds", "seeds"), rows)
    yield (
        "Accuracies and retention in percent, BWT, FWT and forgetting in points. `-` is undefined for the method "
        "(not evaluated); a bare `0` is exact, `0.00` is rounded."
        + (" Mean ± sample deviation over the seeds." if several else "")
    )
    changed = {name: _changed_logits(method) for name, method in results["methods"].items()}
    known = [f"{_text(name)} {told}" for name, told in changed.items() if told]
    if known:
        yield "Tasks whose test logits differ in any bit from when the task was learnt: " + ", ".join(known) + "."


def _changed_logits(method: Mapping[str, Any]) -> str:
    """How many tasks' logits changed, one number per run, or one for all when they agree; empty if not told."""
    told = [run.get("extra", {}).get("tasks_with_changed_logits") for run in method["runs"]]
    if None in told:
        return ""
    return " / ".join(map(str, told if len(set(told)) > 1 else told[:1]))


def _samples(results: Mapping[str, Any]) -> Iterable[str]:
    """One question of every task with what the model wrote after the last one; of methods that tell."""
    for name, samples in samples_of(results).items():
        yield f"## Written after the last task: {_text(name)}"
        yield "The first test question of every task, answered by one model with each task's own slot, in one batch."
        prompt = samples[0]["prompt"].rstrip().replace("```", "'''")
        yield f"```\n{prompt}\n```"
        rows = [(_text(each["task"]), *map(_text, verdict(each))) for each in samples]
        yield _table(("task", "written", "right"), rows, left=(0, 1))


def _router(results: Mapping[str, Any]) -> Iterable[str]:
    """How the router chose, and ACC with it and without; only where some method is routed."""
    if not any(routed(method) for method in results["methods"].values()):
        return
    yield "## Router"
    head = ("method", "router accuracy", "ACC with router", "ACC with task id", "ACC without router")
    rows = []
    for name, method in results["methods"].items():
        acc = _spread(percent, method["mean"]["acc"], method["std"]["acc"]) if routed(method) else DASH
        acc = finding(method, WITH_ROUTER) if finding(method, WITH_ROUTER) != DASH else acc
        cells = finding(method, ROUTER), acc, finding(method, WITH_ID), finding(method, WITHOUT)
        rows.append((_named(name, method, results), *cells))
    yield _table(head, rows)
    yield (
        "In percent, after the last task. No task id is given, and a router chooses the slot that answers each "
        "example; its accuracy is how often that is the slot of the example's own task. With task id: had the slot "
        "been told. Without router: by the last task's slot where all tasks have the same outputs, else by the highest "
        "logit of all heads. `-`: one head answers for all tasks, and nothing is routed."
    )


def _parameters(results: Mapping[str, Any]) -> Iterable[str]:
    tasks = len(task_names(results))
    rows = []
    for name, method in results["methods"].items():
        held = method["params"]
        heads = None if held["heads_per_task"] is None else held.get("head_sets", tasks) * held["heads_per_task"]
        rows.append(
            (
                _text(name),
                *(exact(held[key]) for key in ("shared", "per_task", "heads_per_task")),
                exact(held["total_tasks"]),
                exact(heads),
                exact(held["separate_lora_total"]),
                ratio(held["ratio_to_separate"]),
                ratio(_with_heads(held, heads)),
                ratio(_to_base(held, None)),
                ratio(_to_base(held, heads)),
            )
        )
    head = (
        "method",
        "shared",
        "per task",
        "head per task",
        f"adapters, {tasks} tasks",
        "heads, all",
        f"{tasks} separate LoRAs",
        "ratio to separate",
        "the same with heads",
        "ratio to base",
        "the same with heads",
    )
    yield _table(head, rows)
    base = {held["params"]["base"] or 0 for held in results["methods"].values()} - {0}
    bases = " or ".join(f"{exact(value)} ({count(value)})" for value in sorted(base)) or DASH
    yield (
        f"Numbers of parameters; the frozen base model has {bases}. Adapters of {tasks} tasks: shared + {tasks} * per "
        "task. With heads, those of all tasks count on both sides: (adapters + heads) / (separate LoRAs + heads)."
    )


def _with_heads(held: Mapping[str, Any], heads: float | None) -> float | None:
    known = (held["total_tasks"], held["separate_lora_total"], heads)
    if "ratio_to_separate_with_heads" in held or None in known or held["ratio_to_separate"] is None:
        return held.get("ratio_to_separate_with_heads")
    total, separate, all_heads = (float(value or 0) for value in known)
    return (total + all_heads) / (separate + all_heads) if separate + all_heads else None


def _to_base(held: Mapping[str, Any], heads: float | None) -> float | None:
    if not held["base"] or held["total_tasks"] is None:
        return None
    return (held["total_tasks"] + (heads or 0)) / held["base"]


def _bytes(results: Mapping[str, Any]) -> Iterable[str]:
    sizes = {name: method["bytes"] for name, method in results["methods"].items()}
    keys = list(dict.fromkeys(key for held in sizes.values() for key in held))
    if keys:
        rows = [(_text(name), *(size(held.get(key)) for key in keys)) for name, held in sizes.items()]
        yield _table(("bytes", *map(_text, keys)), rows)


def _subspaces(results: Mapping[str, Any], shown: Iterable[str]) -> Iterable[str]:
    """What merging cost each task's update: measured, and proven to be the most; only for methods that merge."""
    names = task_names(results)
    found = {name: update_errors(method, names) for name, method in results["methods"].items()}
    merging = {name: each for name, each in found.items() if each is not None}
    for name, (measured, bound) in merging.items():
        rows = [(_text(task), *map(_error, pair)) for task, *pair in zip(names, measured, bound, strict=True)]
        yield f"## Error of each task's update after all merges: {_text(name)}"
        if name == next(iter(merging)):
            yield from shown
        yield _table(("task", "measured", "proven bound"), rows)
        yield (
            "Frobenius norm of what the update has lost since it was learnt, relative to the update, over all kernels; "
            "the largest over the seeds. Where the updates as they were learnt are gone: -."
        )


def _error(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2e}"


def _forgetting(results: Mapping[str, Any], shown: Iterable[str]) -> Iterable[str]:
    """Points lost on every task but the last, of the methods whose matrix tells."""
    names = task_names(results)[:-1]
    lost = {name: mean_forgetting(method) for name, method in results["methods"].items()}
    lost = {name: row for name, row in lost.items() if not np.isnan(row).all()}
    if not names or not lost:
        return
    yield "## Forgetting of each task"
    yield from shown
    rows = [
        (f"{t + 1} {_text(task)}", *(percent(None if np.isnan(row[t]) else float(row[t])) for row in lost.values()))
        for t, task in enumerate(names)
    ]
    yield _table(("task", *map(_text, lost)), rows)
    yield (
        "Points from the best accuracy ever had on the task to the one after the last task; below 0, later tasks "
        "helped. The last task is left out."
    )


def _seconds(results: Mapping[str, Any], shown: Iterable[str]) -> Iterable[str]:
    """Wall time of every task, of the methods that tell."""
    told = {name: task_seconds(method) for name, method in results["methods"].items()}
    spent = {name: times.mean(axis=0) for name, times in told.items() if times is not None}
    if not spent:
        return
    yield "## Seconds of each task"
    yield from shown
    rows = [
        (f"{t + 1} {_text(task)}", *(seconds(float(times[t])) for times in spent.values()))
        for t, task in enumerate(task_names(results))
    ]
    yield _table(("task", *map(_text, spent)), rows)
    yield (
        "Wall time of training, merging and evaluating (the task and those before it), without preparing and "
        "compiling; mean over the seeds. Of a task that was stopped and resumed only the last part is known."
    )


def _tasks(results: Mapping[str, Any]) -> Iterable[str]:
    learnt = {name: mean_matrix(method) for name, method in results["methods"].items()}
    rows = []
    for task, name in enumerate(task_names(results)):
        cells = (f"{_number(matrix[task, task])} → {_number(matrix[-1, task])}" for matrix in learnt.values())
        rows.append((f"{task + 1} {_text(name)}", *cells))
    yield _table(("task", *map(_text, learnt)), rows)
    yield "Accuracy in percent on each task just after it was learnt → after the last task."


def _matrices(results: Mapping[str, Any]) -> Iterable[str]:
    names = task_names(results)
    yield "Accuracy in percent after learning the task of the row, on the task of the column."
    for name, method in results["methods"].items():
        runs = len(method["runs"])
        yield f"### {_text(name)}" + (f", mean of {runs} seeds" if runs > 1 else "")
        rows = [
            (f"{i + 1} {_text(task)}", *map(_number, row))
            for i, (task, row) in enumerate(zip(names, mean_matrix(method), strict=True))
        ]
        untrained = [run["untrained"] for run in method["runs"] if "untrained" in run]
        if len(untrained) == runs:
            before = np.mean(np.array(untrained, dtype=np.float64), axis=0)
            rows.insert(0, ("untrained", *map(_number, before)))
        yield _table(("after", *(str(i + 1) for i in range(len(names)))), rows)


def _named(name: str, method: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    runs, seeds = len(method["runs"]), len(results["seeds"])
    return _text(name) if runs == seeds else f"{_text(name)} ({runs} of {seeds} seeds)"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
