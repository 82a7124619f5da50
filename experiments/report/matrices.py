"""The figure of accuracy matrices: one heat map per method, small multiples on one colour scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from experiments.report.cells import shortened
from experiments.report.results import mean_matrix, task_names
from experiments.report.style import FAINT, INK, broken, heading

COLOURS = "YlGnBu"
"""One hue after another, lightness falling evenly: read alike with every kind of colour blindness and in grey."""
BLANK: dict[str, Any] = {"facecolor": "#f4f4f4", "edgecolor": "#d0d0d0", "hatch": "////", "linewidth": 0}


@dataclass(frozen=True)
class _Layout:
    """Where everything stands, in inches from the figure's top left corner."""

    cell: float
    panel: float
    slot: float
    columns: int
    width: float
    height: float
    left: float
    top: float = 1.05
    between: float = 0.72

    def box(self, index: int, x: float = 0.0, wide: float | None = None) -> tuple[float, float, float, float]:
        """Panel `index`, or a box of another width `x` to its right, as matplotlib's (left, bottom, width, height)."""
        row, column = divmod(index, self.columns)
        left = self.left + column * self.slot + x
        bottom = self.height - self.top - row * (self.panel + self.between) - self.panel
        wide = self.panel if wide is None else wide
        return (left / self.width, bottom / self.height, wide / self.width, self.panel / self.height)


def draw_matrices(results: Mapping[str, Any]) -> Figure:
    """The figure of `plot_matrices`."""
    methods = results["methods"]
    names = task_names(results)
    cell = min(max(0.36, 2.2 / len(names)), 6.0 / len(names), 0.62)
    labels = [broken(name) if cell >= 0.3 else shortened(name, 32) for name in names]
    titles = [_title(name, len(method["runs"])) for name, method in methods.items()]
    layout = _lay_out(cell, labels, titles)
    figure = Figure(figsize=(layout.width, layout.height))
    for index, (title, method) in enumerate(zip(titles, methods.values(), strict=True)):
        axes = figure.add_axes(layout.box(index))
        _heat_map(axes, mean_matrix(method), layout.cell)
        axes.set_title(title, loc="left", fontsize=10, pad=6)
        _name_axes(axes, labels, layout.cell, named=index % layout.columns == 0)
        if index + layout.columns >= len(methods):
            axes.set_xlabel("evaluated on task", fontsize=8.5, color="#555555")
    _add_scale(figure, layout)
    heading(
        figure,
        f"Accuracy matrix: {results['experiment']}, {results['preset']}",
        f"accuracy in % on each task (column) after learning each task (row); {results['protocol']}",
        0.18 / layout.width,
    )
    return figure


def _lay_out(cell: float, labels: Sequence[str], titles: Sequence[str]) -> _Layout:
    tasks = len(labels)
    columns = min(len(titles), 3 if tasks <= 12 else 2)
    rows = -(-len(titles) // columns)
    panel = cell * tasks
    slot = max(panel + 0.45, 0.2 + 0.082 * max(map(len, titles)))
    left = 0.5 + 0.072 * max(len(part) for label in labels for part in label.split("\n"))
    return _Layout(
        cell=cell,
        panel=panel,
        slot=slot,
        columns=columns,
        left=left,
        width=max(left + columns * slot + 0.45, 6.8),
        height=_Layout.top + rows * panel + (rows - 1) * _Layout.between + 0.62,
    )


def _title(name: str, runs: int) -> str:
    return name if runs == 1 else f"{name}, mean of {runs} seeds"


def _add_scale(figure: Figure, layout: _Layout) -> None:
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    box = layout.box(layout.columns - 1, x=layout.slot - 0.23, wide=0.14)
    bar = figure.colorbar(scale, cax=figure.add_axes(box), ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.set_ticklabels(["0", "25", "50", "75", "100"])
    bar.ax.set_title("%", fontsize=9, pad=6)
    bar.ax.tick_params(labelsize=8, color=FAINT)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    corner = (1 - 0.1 / layout.width, 1 - 0.1 / layout.height)
    look = {"loc": "upper right", "frameon": False, "fontsize": 8.5, "borderpad": 0}
    figure.legend([Patch(**BLANK)], ["not evaluated"], bbox_to_anchor=corner, **look)


def _heat_map(axes: Any, matrix: np.ndarray, cell: float) -> None:
    for row, column in zip(*np.nonzero(np.isnan(matrix)), strict=True):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **BLANK))
    colours = mpl.colormaps[COLOURS]
    axes.imshow(np.ma.masked_invalid(matrix), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    if cell >= 0.24:
        look = {"ha": "center", "va": "center", "fontsize": min(9.0, 24 * cell)}
        for (row, column), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                axes.text(column, row, f"{100 * value:.0f}", color=_contrast(colours, value), **look)
    edges = np.arange(len(matrix) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="white", linewidth=min(1.2, 3 * cell))
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _name_axes(axes: Any, labels: Sequence[str], cell: float, named: bool) -> None:
    """Numbers on both axes, as many as fit, and the tasks' names beside the rows of a first panel."""
    small = 8.0 if cell >= 0.24 else 6.5
    step = 1 if cell >= 0.18 else round(0.36 / cell)
    shown = range(0, len(labels), step)
    numbers = [str(index + 1) for index in shown]
    axes.set_xticks(shown, numbers, fontsize=small)
    axes.set_yticks(shown, numbers, fontsize=small)
    if not named:
        return
    look = {"ha": "right", "va": "center", "fontsize": small, "linespacing": 0.95, "annotation_clip": False}
    for index in shown:
        axes.annotate(labels[index], (-0.5, index), xytext=(-20, 0), textcoords="offset points", **look)


def _contrast(colours: Colormap, value: float) -> str:
    """White on dark cells, ink on light ones, by relative luminance."""
    red, green, blue = colours(value)[:3]
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else INK
