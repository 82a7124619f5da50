"""The accuracy matrix of every method in one picture: small multiples in the same shades."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure as Chart

from experiments.report.cells import shortened
from experiments.report.charts import INCH, panel, shade
from experiments.report.results import mean_matrix, task_names
from experiments.report.theme import INK, SOFT, heading
from experiments.task_metrics import spoken

TOP, BETWEEN, BOTTOM, SCALE = 84.0, 62.0, 16.0, 12.0
"""Pixels: above the first row of panels, between rows, below the last one, and the width of the scale."""


def draw_matrices(results: Mapping[str, Any]) -> Chart:
    """A panel per method: accuracy in percent on each task (column) after each task (row), with the tasks' names."""
    methods, names = results["methods"], [shortened(name, 32) for name in task_names(results)]
    titles = [
        name if len(method["runs"]) == 1 else f"{name}, mean of {len(method['runs'])} seeds"
        for name, method in methods.items()
    ]
    title = f"Accuracy matrix: {results['experiment']}, {results['preset']}"
    score = spoken(results.get("metrics", ()))
    told = f"{score} in % on each task (column) after learning each task (row), empty: not evaluated; "
    told += results["protocol"]
    tasks, cell = len(names), 26.0 if len(names) <= 20 else 14.0
    columns = min(len(titles), 3 if tasks <= 12 else 2)
    side, left = cell * tasks, 24 + 6.2 * max(map(len, names))
    slot = max(side + 34, 16 + 7.6 * max(map(len, titles)))
    rows = math.ceil(len(titles) / columns)
    wide = max(left + columns * slot + 50, 6.4 * len(told) + 20, 520)
    tall = TOP + rows * side + (rows - 1) * BETWEEN + BOTTOM
    chart = Chart((wide / INCH, tall / INCH))
    numbers = [str(task + 1) for task in range(tasks)]
    named = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    shades = []
    for index, (title_of, method) in enumerate(zip(titles, methods.values(), strict=True)):
        row, column = divmod(index, columns)
        axes = panel(chart, (left + slot * column, TOP + (side + BETWEEN) * row, side, side))
        axes.set_title(title_of, loc="left", fontsize=10, pad=20, color=INK)
        shades.append(shade(axes, 100 * mean_matrix(method), 100, 0 if cell >= 20 else None))
        every = slice(None, None, 1 if cell >= 20 else 2)
        axes.set_xticks(range(tasks)[every], numbers[every], fontsize=8, color=SOFT)
        axes.set_yticks(range(tasks), numbers if column else named, fontsize=8, color=SOFT)
    place = panel(chart, (left + slot * columns - 10, TOP, SCALE, side))
    bar = chart.colorbar(shades[0], cax=place, ticks=[0, 50, 100])
    place.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    heading(chart, title, told, 10 / wide)
    return chart
