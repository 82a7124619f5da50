"""The page that `run` writes: its plots, its tables, and what they say, read off the rows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.blocks import table
from experiments.report.charts import Line, line_chart
from experiments.report.svg import Figure, figure_of
from experiments.studies.saturation.varied import CHOICES, FIXED, STARTS, TEST, TOGETHER, TOKENS, TRAIN
from share_jax.storage.atomic_write import replace_text

COMMAND = (
    "python -m experiments.studies.saturation --data-folder path/to/clinc150 --json runs/saturation.json "
    "--markdown experiments/studies/saturation/SATURATION.md"
)
CLOSE = 0.01
"""An accuracy this far below that of the tasks' own LoRAs still counts as kept."""

COLUMNS = (
    "choice",
    "tasks",
    "k, in and out",
    "error",
    "largest",
    "at once",
    "bound",
    "accuracy",
    "own",
    "without",
    "KB",
    "of separate",
)

Row = dict[str, Any]


def write_page(content: dict[str, Any], path: Path) -> None:
    """Writes the page, and its plots as SVG beside it.

    Args:
        content: what the study found.
        path: of the Markdown file.
    """
    figures = draw(content["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        replace_text(figure.file(), path.with_name(f"{figure.name}.svg"))
    replace_text(page(content, figures), path)


def page(content: dict[str, Any], figures: Sequence[Figure]) -> str:
    """The Markdown text."""
    rows, budget = content["rows"], content["budget"]
    most = max(row["tasks"] for row in rows)
    device = content["versions"]["device_kind"]
    blocks = [
        "# Saturation: how many tasks fit into one subspace",
        f"Written by `{COMMAND}`, seed {content['seed']}, on {device}.",
        f"{most} small tasks, each of 2 to 5 intents of one CLINC150 domain drawn at random ({TRAIN} texts of each to "
        f"learn from, {TEST} to be tested on, {TOKENS} tokens), so intents recur in many tasks. Each is learnt on the "
        f"frozen MiniLM as a LoRA of rank {budget['rank']} on the last FFN-down kernel (1536 x 384), in "
        f"{budget['steps']} updates. One random frozen head serves all tasks: what is known of a task is in its LoRA "
        "alone, and *without* it a task is answered by chance. (It also makes the tasks' output sides more alike than "
        "heads of their own would.) The LoRAs are merged into `share` one after another, or "
        f"{TOGETHER} at a time where k grows; the old ones are not kept.",
        "- *error*: of a task's update, relative to it in Frobenius norm, measured against its own LoRA; mean and "
        "largest over all tasks. *bound*: what the library proves of it without having the LoRA; its mean.\n"
        "- *at once*: the mean error had one subspace of that k been made of all LoRAs together. What the error is "
        "above it is the price of merging one after another.\n"
        "- *accuracy*: mean over all tasks with their updates out of the subspace; *own*: with their own LoRAs.\n"
        "- *bytes*: bases and all coefficients in float32; *of separate*: beside as many separate LoRAs.",
        "## What it says",
        "\n".join(f"- {sentence}" for sentence in findings(rows)),
    ]
    for start, told in STARTS.items():
        own = [row for row in rows if row["start"] == start]
        if own:
            blocks += [f"## {told[0].upper()}{told[1:]}"]
            blocks += [
                f"![{each.alt}]({each.name}.svg)\n\n{each.caption}" for each in figures if f"-{start}-" in each.name
            ]
            blocks += [rows_table(own)]
    return "\n\n".join(blocks) + "\n"


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences that hold of these rows."""
    held = sum(row["bound_held"] for row in rows)
    past = sum(row["bound_mean"] > 1 for row in rows)
    out = [
        f"The proven bound was above the measured error of every task in {held} of {len(rows)} states. In {past} of "
        "them its mean is above 1, which says no more than that k is too small for so many merges."
    ]
    ratios = [row["error_mean"] / row["at_once"] for row in rows if row.get("at_once", 0) > 1e-4]
    if ratios:
        out.append(
            f"Merging one after another made the mean error at most {max(ratios):.3f} times that of all at once."
        )
    for start, told in STARTS.items():
        own = [row for row in rows if row["start"] == start]
        if own:
            out += [f"With {told}: {sentence}" for sentence in (_fixed(own), _growing(own), _smallest(own))]
    return out


def _fixed(rows: Sequence[Row]) -> str:
    parts = []
    for k in FIXED:
        lines = [row for row in rows if row["choice"] == f"k = {k}"]
        if len(lines) > 1:
            first, last, before = lines[0], lines[-1], lines[-2]
            parts.append(
                f"k = {k} from {first['error_mean']:.2f} at {first['tasks']} tasks to {last['error_mean']:.2f} at "
                f"{last['tasks']} ({last['error_mean'] - before['error_mean']:.3f} of it since {before['tasks']}), "
                f"accuracy {100 * last['accuracy']:.1f} of {100 * last['own_accuracy']:.1f} %"
            )
    return "at fixed k the mean error rises with the number of tasks: " + "; ".join(parts) + "."


def _growing(rows: Sequence[Row]) -> str:
    parts = []
    for name, choice in CHOICES.items():
        lines = [row for row in rows if row["choice"] == name]
        if choice.k is not None or len(lines) < 2:
            continue
        first, last = lines[0], lines[-1]
        powers = [
            math.log(b / a) / math.log(last["tasks"] / first["tasks"])
            for a, b in zip(first["k"], last["k"], strict=True)
        ]
        parts.append(
            f"{name}: k grows from {first['k'][0]} and {first['k'][1]} to {last['k'][0]} and {last['k'][1]} (input and "
            f"output side), as the {powers[0]:.2f}th and {powers[1]:.2f}th power of the number of tasks; "
            f"accuracy {100 * last['accuracy']:.1f} of {100 * last['own_accuracy']:.1f} %, "
            f"{100 * last['bytes'] / last['separate_bytes']:.0f} % of the separate LoRAs' bytes"
        )
    return "with k growing, " + ("; ".join(parts) or "nothing was run") + ". The first power would be no sharing."


def _smallest(rows: Sequence[Row]) -> str:
    most = max(row["tasks"] for row in rows)
    kept = [row for row in rows if row["tasks"] == most and row["accuracy"] >= row["own_accuracy"] - CLOSE]
    if not kept:
        return f"at {most} tasks no choice keeps the accuracy within {100 * CLOSE:.0f} point."
    best = min(kept, key=lambda row: row["bytes"])
    share = 100 * best["bytes"] / best["separate_bytes"]
    return (
        f"at {most} tasks the smallest state that keeps the accuracy within {100 * CLOSE:.0f} point is "
        f"{best['choice']}: {share:.1f} % of the separate LoRAs' bytes, at a mean error of {best['error_mean']:.2f}."
    )


def rows_table(rows: Sequence[Row]) -> str:
    """All rows of one start."""
    found = []
    for row in rows:
        k_in, k_out = row["k"]
        once = f"{row['at_once']:.3f}" if row.get("at_once") is not None else "-"
        errors = f"{row['error_mean']:.3f}", f"{row['error_max']:.3f}", once, f"{row['bound_mean']:.3f}"
        accuracies = (f"{100 * row[key]:.1f}" for key in ("accuracy", "own_accuracy", "without_accuracy"))
        sizes = f"{row['bytes'] / 1000:,.0f}", f"{row['bytes'] / row['separate_bytes']:.3f}"
        found.append((row["choice"], row["tasks"], f"{k_in}, {k_out}", *errors, *accuracies, *sizes))
    return table(COLUMNS, found)


def draw(rows: Sequence[Row]) -> list[Figure]:
    """Error and accuracy over the number of tasks, a line per choice of k, for each start."""
    out = []
    counts = sorted({row["tasks"] for row in rows})
    for start, told in STARTS.items():
        own = [row for row in rows if row["start"] == start]
        if own:
            error = _lines(own, counts, "error_mean", "{:.3g}")
            accuracy = _lines(own, counts, "accuracy", "{:.1f}", 100.0)
            best = np.array([next(r["own_accuracy"] for r in own if r["tasks"] == count) for count in counts])
            accuracy.append(Line("own LoRAs", 100 * best, None, None, f"{100 * best[-1]:.1f}"))
            options: dict[str, Any] = {"x_labels": [str(count) for count in counts]}
            alt = f"Mean relative error against the number of tasks, {told}; the last values: {_ends(error)}."
            chart = line_chart(error, "relative error of the updates", "tasks", **options)
            out.append(figure_of(f"saturation-{start}-error", chart, alt, "Mean relative error of all tasks' updates."))
            alt = f"Mean accuracy in percent against the number of tasks, {told}; the last values: {_ends(accuracy)}."
            chart = line_chart(accuracy, "accuracy of all tasks, %", "tasks", percent=True, **options)
            out.append(figure_of(f"saturation-{start}-accuracy", chart, alt, "Mean accuracy of all tasks, merged."))
    return out


def _lines(rows: Sequence[Row], counts: Sequence[int], key: str, form: str, factor: float = 1.0) -> list[Line]:
    lines = []
    for index, name in enumerate(CHOICES):
        known = {row["tasks"]: factor * row[key] for row in rows if row["choice"] == name}
        if known:
            values = np.array([known.get(count, np.nan) for count in counts])
            lines.append(Line(name, values, None, index, form.format(values[-1])))
    return lines


def _ends(lines: Sequence[Line]) -> str:
    return ", ".join(f"{line.name} {line.told}" for line in lines)
