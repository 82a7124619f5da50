"""The figure of accuracy over tasks: how well everything seen so far is still known, a line per method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report.cells import shortened
from experiments.report.results import matrix_of, task_names
from experiments.report.style import BASELINES, FAINT, GRID, heading, pen, spread_out
from share_jax.metrics import seen_accuracy

NAME = 36
"""Characters of a method's name that have room beside its line."""


def draw_curve(results: Mapping[str, Any]) -> Figure:
    """The figure of `plot_curve`."""
    names, methods = task_names(results), results["methods"]
    tasks = len(names)
    right = 1.2 + 0.075 * max(len(shortened(name, NAME)) for name in methods)  # inches, for the names beside the lines
    left, plot, height = 0.72, 6.3, 5.4
    figure = Figure(figsize=(left + plot + right, height))
    width = left + plot + right
    axes = figure.add_axes((left / width, 0.62 / height, plot / width, (height - 1.4) / height))
    after = np.arange(1, tasks + 1)
    ends, lines = [], 0
    for name, method in methods.items():
        curves = 100 * np.array([seen_accuracy(matrix_of(run)) for run in method["runs"]])
        mean = curves.mean(axis=0)
        if np.all(np.isnan(mean)):
            continue
        baseline = name in BASELINES
        look = {"color": FAINT, "marker": "", "linestyle": (0, (4, 3))} if baseline else pen(lines)
        lines += not baseline
        size, order = (8.5, 5) if np.isfinite(mean).sum() == 1 else (5.5, 2 if baseline else 3)
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.7}
        axes.plot(after, mean, linewidth=1.8, markersize=size, zorder=order, clip_on=False, **edge, **look)
        if len(curves) > 1:
            deviation = curves.std(axis=0, ddof=1)
            axes.fill_between(after, mean - deviation, mean + deviation, color=look["color"], alpha=0.15, linewidth=0)
        last = int(np.flatnonzero(~np.isnan(mean))[-1])
        ends.append((name, look["color"], last + 1, mean[last]))
    _frame(axes, tasks)
    _name_lines(axes, ends, tasks)
    seeds = len(results["seeds"])
    heading(
        figure,
        f"Accuracy over the tasks seen so far: {results['experiment']}, {results['preset']}",
        results["protocol"] + (f"; mean and sample deviation of {seeds} seeds" if seeds > 1 else ""),
        0.02,
    )
    return figure


def _frame(axes: Any, tasks: int) -> None:
    low = max(0, 10 * np.floor(axes.dataLim.y0 / 10 - 0.2)) if np.isfinite(axes.dataLim.y0) else 0
    axes.set_ylim(low, 100)
    axes.set_xlim(0.9, max(tasks, 2) if tasks > 1 else 1.1)
    axes.set_yticks(np.arange(low, 101, 10 if low < 70 else 5))
    step = max(1, -(-tasks // 12))
    axes.set_xticks(range(1, tasks + 1, step))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors="#555555")
    axes.set_xlabel("tasks learnt", color="#555555")
    axes.set_ylabel("mean accuracy on the tasks learnt, %", color="#555555")


def _name_lines(axes: Any, ends: Sequence[tuple[str, str, int, float]], tasks: int) -> None:
    """Writes each line's name and last value beside its end, moved apart, with a thin leader."""
    low, high = axes.get_ylim()
    gap = 0.058 * (high - low)
    places = spread_out([value for *_, value in ends], gap, low + gap / 2, high)
    span = np.diff(axes.get_xlim())[0]
    for (name, colour, after, value), place in zip(ends, places, strict=True):
        leader = {"color": colour, "linewidth": 0.8, "alpha": 0.6, "clip_on": False}
        axes.plot([after + 0.015 * span, tasks + 0.015 * span, tasks + 0.05 * span], [value, value, place], **leader)
        axes.text(tasks + 0.06 * span, place, f"{value:.1f}", color=colour, va="center", fontsize=9, fontweight="bold")
        axes.text(tasks + 0.13 * span, place, shortened(name, NAME), va="center", fontsize=9)
