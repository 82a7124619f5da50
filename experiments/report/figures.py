"""The figures of a report from the content of a `results.json`: as SVG for the page, and two as PNG beside a run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart

from experiments.report.charts import Dot, Line, dot_chart, line_chart, number_grid
from experiments.report.matrices import draw_matrices
from experiments.report.per_task import kept, mean_forgetting, task_seconds, update_errors
from experiments.report.results import matrix_of, mean_matrix, task_names
from experiments.report.svg import Figure, figure_of
from experiments.report.theme import BASELINES, FONT
from experiments.task_metrics import spoken
from share_jax.metrics import seen_accuracy

Drawn = tuple[Chart, str, str]
"""A chart, what it shows, and how it is read."""

DPI = 160
Pictures = dict[str, list[Figure]]
"""Figures by their place in the report: curve, pareto, forgetting, seconds, errors, matrices."""


def draw_figures(results: Mapping[str, Any], prefix: str = "") -> Pictures:
    """Every figure that the results have something for.

    Args:
        results: the content of `results.json`.
        prefix: begins the figures' names, so that those of several sections differ.
    """
    places = {
        "curve": draw_curve(results),
        "pareto": _pareto(results),
        "forgetting": _forgetting(results),
        "seconds": _seconds(results),
        "errors": _errors(results),
    }
    drawn = {
        place: [figure_of(f"{prefix}{place}", *parts)] if parts is not None else [] for place, parts in places.items()
    }
    return {**drawn, "matrices": _matrices(results, prefix)}


def plot_matrices(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws the accuracies of every method as a grid, all in the same shades, and writes them as one PNG.

    Args:
        results: the content of `results.json`; several seeds are averaged.
        path: where the PNG goes.
    """
    _write(draw_matrices(results), path)


def plot_curve(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws the mean accuracy over the tasks seen so far after each task, a line per method, as a PNG.

    Args:
        results: the content of `results.json`; several seeds give a line of means in a band of one deviation.
        path: where the PNG goes.
    """
    drawn = draw_curve(results)
    if drawn is not None:
        _write(drawn[0], path)


def _write(chart: Chart, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(FONT):
        FigureCanvasAgg(chart)
        chart.savefig(path, dpi=DPI, facecolor="white", format="png", bbox_inches="tight", metadata={"Software": None})


def _looks(results: Mapping[str, Any]) -> dict[str, int | None]:
    """Each method's look, the same in every figure; None for the majority class."""
    trained = [name for name in results["methods"] if name not in BASELINES]
    return {name: None if name in BASELINES else trained.index(name) for name in results["methods"]}


def _over(results: Mapping[str, Any]) -> str:
    seeds = len(results["seeds"])
    return f" Mean and sample deviation of up to {seeds} seeds." if seeds > 1 else ""


def _deviation(curves: np.ndarray) -> np.ndarray | None:
    return curves.std(axis=0, ddof=1) if len(curves) > 1 else None


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"


def draw_curve(results: Mapping[str, Any]) -> Drawn | None:
    """Mean accuracy over the tasks seen so far, a line per method; None where no method has any."""
    looks, lines = _looks(results), []
    for name, method in results["methods"].items():
        curves = 100 * np.array([seen_accuracy(matrix_of(run)) for run in method["runs"]])
        mean = curves.mean(axis=0)
        if not np.isnan(mean).all():
            lines.append(Line(name, mean, _deviation(curves), looks[name], _percent(mean[-1])))
    if not lines:
        return None
    lines.sort(key=lambda line: -np.nan_to_num(line.values[-1]))
    ends = ", ".join(f"{line.name} {line.told}" for line in lines)
    score = spoken(results.get("metrics", ()))
    alt = f"Mean {score} in percent on the tasks learnt so far, a line per method. After the last task: {ends}."
    caption = f"Mean {score} on the tasks learnt so far; the legend has the value after the last task." + _over(results)
    return line_chart(lines, f"{score} on tasks learnt, %", "tasks learnt", percent=True), alt, caption


def _pareto(results: Mapping[str, Any]) -> Drawn | None:
    looks, dots, floor = _looks(results), [], None
    tasks = len(task_names(results))
    for name, method in results["methods"].items():
        mean, spread = method["mean"]["acc"], method["std"]["acc"]
        numbers, index = kept(method, tasks), looks[name]
        if mean is None:
            continue
        if index is None:
            floor = (name, 100 * mean)
        elif numbers:
            dots.append(
                Dot(name, numbers, 100 * mean, None if spread is None else 100 * spread, index, f"{100 * mean:.1f}")
            )
    if not dots:
        return None
    dots.sort(key=lambda dot: -dot.y)
    alt = "Accuracy after the last task against numbers kept for all tasks: " + ", ".join(
        f"{dot.name} {dot.told} with {dot.x:,.0f}" for dot in dots
    )
    caption = (
        "Accuracy after the last task against the numbers that all tasks together keep, adapters and heads. Thin line: "
        "methods that no other beats in both." + _over(results)
    )
    return dot_chart(dots, floor, "accuracy, %", "adapters and heads of all tasks, numbers"), alt, caption


def _forgetting(results: Mapping[str, Any]) -> Drawn | None:
    rows = {name: 100 * mean_forgetting(method) for name, method in results["methods"].items()}
    rows = {name: row for name, row in rows.items() if row.size and not np.isnan(row).all()}
    if not rows:
        return None
    values = np.array(list(rows.values()))
    alt = "Forgetting of each task in points: " + "; ".join(
        f"{name} at most {np.nanmax(row):.1f}" for name, row in rows.items()
    )
    caption = "Points lost on each task from its best to the end. A bare 0 is exact; blue: later tasks helped."
    full = max(float(np.nanmax(np.abs(values))), 5.0)
    grid = number_grid("", list(rows), values, full=full, x_name="task", digits=1, signed=True)
    return grid, alt + ".", caption


def _seconds(results: Mapping[str, Any]) -> Drawn | None:
    looks, lines = _looks(results), []
    for name, method in results["methods"].items():
        times = task_seconds(method)
        if times is not None:
            mean = times.mean(axis=0)
            lines.append(Line(name, mean, _deviation(times), looks[name], f"{mean.mean():.2f}"))
    if not lines:
        return None
    lines.sort(key=lambda line: -line.values.mean())
    alt = "Wall time of each task in seconds; means over the tasks: "
    alt += ", ".join(f"{line.name} {line.told}" for line in lines) + "."
    caption = (
        "Wall time of each task: training, merging, and evaluating it and the tasks before it, without compiling. The "
        "legend has the mean over the tasks." + _over(results)
    )
    return line_chart(lines, "seconds", "task"), alt, caption


def _errors(results: Mapping[str, Any]) -> Drawn | None:
    looks, lines = _looks(results), []
    for name, method in results["methods"].items():
        found = update_errors(method, task_names(results))
        if found is None or all(np.isnan(each).all() for each in found):
            continue
        for values, kind, dashed in ((found[0], "measured", False), (found[1], "bound", True)):
            if not np.isnan(values).all():
                told = f"{100 * np.nanmax(values):.2g}"
                lines.append(Line(f"{name}, {kind}", 100 * values, None, looks[name], told, dashed))
    if not lines:
        return None
    alt = "Relative error of each task's update after all merges, in percent; the largest: "
    alt += ", ".join(f"{line.name} {line.told}" for line in lines) + "."
    caption = (
        "What each task's update has lost since it was learnt, in percent of its norm: measured, and proven to be the "
        "most. The legend has the largest of all tasks; the largest over the seeds."
    )
    return line_chart(lines, "relative error, %", "task"), alt, caption


def _matrices(results: Mapping[str, Any], prefix: str) -> list[Figure]:
    figures, names = [], [str(i + 1) for i in range(len(task_names(results)))]
    for number, (name, method) in enumerate(results["methods"].items()):
        matrix = 100 * mean_matrix(method)
        last = ", ".join(_percent(value) for value in matrix[-1])
        alt = f"Accuracy matrix of {name}; after the last task, on each task in percent: {last}."
        seeds = len(method["runs"])
        caption = f"{name}" + (f", mean of {seeds} seeds" if seeds > 1 else "")
        grid = number_grid(name, names, matrix, full=100, x_name="column: evaluated on, row: after learning")
        figures.append(figure_of(f"{prefix}matrix-{number + 1}", grid, alt, caption))
    return figures
