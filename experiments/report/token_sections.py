"""What the report tells of language models alone: bits per byte, other test sets, exact match, and answers that ran."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from experiments.report.blocks import table, text
from experiments.report.cells import DASH, percent
from experiments.report.gains import BITS_FROZEN, BITS_LAST, BITS_LEARNT, KEPT, over_runs

FURTHER, EXACT, EXECUTED = "further", "exact_match", "executed"


def token_sections(results: Mapping[str, Any]) -> Iterable[str]:
    """Headings, tables and paragraphs; nothing where no run tells of any of it."""
    yield from _bits(results)
    yield from _further(results)
    yield from _exact(results)
    yield from _executed(results)


def _bits(results: Mapping[str, Any]) -> Iterable[str]:
    told = {name: {key: over_runs(m, key) for key in (BITS_FROZEN, BITS_LEARNT, BITS_LAST, KEPT)}
            for name, m in results["methods"].items()}  # fmt: skip
    told = {name: each for name, each in told.items() if each[BITS_LAST]}
    if not told:
        return
    yield "## Bits per byte"
    rows = []
    for task in next(iter(told.values()))[BITS_LAST]:
        cells = [f"{_bit(m[BITS_LEARNT][task])} → {_bit(m[BITS_LAST][task])}" for m in told.values()]
        kept = [percent(each[KEPT][task]) for each in told.values()]
        before = next((m[BITS_FROZEN][task] for m in told.values() if m[BITS_FROZEN][task] is not None), None)
        rows.append((text(task), _bit(before), *(cell for pair in zip(cells, kept, strict=True) for cell in pair)))
    head = ["task", "frozen", *(cell for name in told for cell in (text(name), "gain kept"))]
    yield table(head, rows)
    yield (
        "Bits per byte of UTF-8 of the test texts, less is better: of the frozen model, and just after the task was "
        "learnt → after the last task. Gain kept, in percent: frozen minus last, divided by frozen minus learnt; below "
        "0 the model is worse than the frozen one."
    )


def _further(results: Mapping[str, Any]) -> Iterable[str]:
    told = _told(results, FURTHER)
    names = dict.fromkeys(name for runs in told.values() for run in runs for name in run)
    for name in names:
        yield f"## Test set {text(name)}, after the last task"
        runs = {method: [run[name] for run in own if name in run] for method, own in told.items()}
        yield _by_task({method: own for method, own in runs.items() if own})
        yield "In percent, by each task's own metric, on examples that are apart from the test above."


def _exact(results: Mapping[str, Any]) -> Iterable[str]:
    if told := _told(results, EXACT):
        yield "## Exact match, after the last task"
        yield _by_task(told)
        yield (
            "In percent: how often greedy generation writes the right answer to the end. ACC is how often the right "
            "one is the likeliest of the allowed answers, by the summed nats of its tokens and of the end."
        )


def _executed(results: Mapping[str, Any]) -> Iterable[str]:
    told = _told(results, EXECUTED)
    for name in dict.fromkeys(name for runs in told.values() for run in runs for name in run):
        yield f"## Answers that were run, {text(name)}, after the last task"
        runs = {method: [run[name] for run in own if name in run] for method, own in told.items()}
        rows = []
        for task in dict.fromkeys(task for own in runs.values() for run in own for task in run):
            cells = []
            for own in runs.values():
                counts = [run[task] for run in own if task in run]
                right, asked = (sum(each[key] for each in counts) for key in ("right", "asked"))
                cells.append(f"{right} of {asked}" if asked else DASH)
            rows.append((text(task), *cells))
        yield table(("task", *map(text, runs)), rows)
        yield "Questions whose answer, as the model wrote it, gives the right rows when it is run; over all seeds."


def _told(results: Mapping[str, Any], key: str) -> dict[str, list[Any]]:
    """What each method's runs tell, of the methods of which every run does."""
    found = {name: [run.get("extra", {}).get(key) for run in m["runs"]] for name, m in results["methods"].items()}
    return {name: runs for name, runs in found.items() if None not in runs}


def _by_task(told: Mapping[str, list[Mapping[str, float]]]) -> str:
    tasks = dict.fromkeys(task for runs in told.values() for run in runs for task in run)
    rows = [
        (text(task), *(percent(float(np.mean([run[task] for run in runs]))) for runs in told.values()))
        for task in tasks
    ]
    means = (percent(float(np.mean([v for run in runs for v in run.values()]))) for runs in told.values())
    return table(("task", *map(text, told)), [*rows, ("mean", *means)])


def _bit(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
