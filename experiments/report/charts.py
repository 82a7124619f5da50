"""Three kinds of chart, in inches of 72 pixels: lines over tasks, points in a plane, a grid of shaded numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure as Chart
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from experiments.report.cells import count, shortened
from experiments.report.svg import HINTS
from experiments.report.theme import GRID, INK, LIGHT, PAPER, SOFT, pen

INCH = 72.0
WIDTH = 430.0
LEFT, RIGHT, TOP, PLOT, AXIS, ROW = 54.0, 12.0, 22.0, 226.0, 50.0, 20.0
"""Pixels: beside and above the plot, its height, that of the axis under it, and a row of the legend."""
LONGEST, LETTER = 30, 7.6
"""Characters of a name that a legend shows, and pixels that one takes."""
HEAT = [to_rgba(LIGHT["heat"], alpha) for alpha in (0.04, 0.8)]
WARM = [to_rgba(LIGHT["warm"], alpha) for alpha in (0.04, 0.8)]


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart.

    Attributes:
        name: shown in the legend.
        values: (T,), nan where there is none.
        spread: (T,) deviation above and below, or None.
        index: its look; None draws it faint and dashed.
        told: what stands beside the name.
        dashed: whether it is dashed whatever its index.
    """

    name: str
    values: np.ndarray
    spread: np.ndarray | None
    index: int | None
    told: str
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """One point: a name, its place, the deviation of `y`, and its look."""

    name: str
    x: float
    y: float
    spread: float | None
    index: int
    told: str


def line_chart(
    lines: Sequence[Line], y_name: str, x_name: str, *, percent: bool = False, x_labels: Sequence[str] | None = None
) -> Chart:
    """Lines over tasks 1 to T, with bands of a deviation; from 0, or where `percent` from below the lowest to 100.

    Args:
        lines: at least one, all of one length.
        y_name: over the vertical axis.
        x_name: under the horizontal one.
        percent: whether the values are percent of something that is best at 100.
        x_labels: what stands at the T places; their numbers when None.
    """
    tasks = np.arange(1, len(lines[0].values) + 1)
    spreads = [np.zeros(len(tasks)) if line.spread is None else np.nan_to_num(line.spread) for line in lines]
    values = np.array([line.values for line in lines])
    low, high = float(np.nanmin(values - spreads)), float(np.nanmax(values + spreads))
    chart, axes = _plot([_named(line.name, line.told) for line in lines], y_name, x_name)
    bottom, top = _rise(axes, low, 100) if percent else _rise(axes, 0, max(high, 1e-9))
    every = max(1, -(-len(tasks) // 14))
    places = [str(task) for task in tasks] if x_labels is None else x_labels
    axes.set_xlim(0.7, len(tasks) + 0.3)
    axes.set_xticks(tasks[::every], places[::every])
    drawn = []
    for line in lines:
        look = {**pen(line.index), **({"linestyle": (0, (3, 1.5)), "marker": ""} if line.dashed else {})}
        hints = [f"{line.name}, task {t}: {y:.4g}" for t, y in zip(tasks, line.values, strict=True) if not np.isnan(y)]
        gid = HINTS + HINTS.join([line.name, *(hints if look["marker"] else ())])
        order = 2 if line.index is None else 3
        drawn += axes.plot(
            tasks, line.values, gid=gid, label=_named(line.name, line.told), zorder=order, **MARK, **look
        )
        if line.spread is not None:
            edges = (np.clip(line.values + sign * line.spread, bottom, top) for sign in (-1, 1))
            axes.fill_between(tasks, *edges, color=look["color"], alpha=0.16, linewidth=0)
    _legend(chart, drawn)
    return chart


def dot_chart(dots: Sequence[Dot], floor: tuple[str, float] | None, y_name: str, x_name: str) -> Chart:
    """Points over a logarithmic axis, the best of them joined, and a dashed floor with its name."""
    chart, axes = _plot([_named(dot.name, dot.told) for dot in dots], y_name, x_name)
    _, top = _rise(axes, min([dot.y - (dot.spread or 0) for dot in dots] + ([floor[1]] if floor else [])), 100)
    low, high = min(dot.x for dot in dots) * 10**-0.15, max(dot.x for dot in dots) * 10**0.15
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    marks = [m * 10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high))) for m in (1, 2, 5)]
    marks = [mark for mark in marks if low <= mark <= high]
    apart = 44 / (WIDTH - LEFT - RIGHT) * math.log10(high / low)
    kept: list[float] = []
    for mark in marks:
        if not kept or math.log10(mark / kept[-1]) > apart:
            kept.append(mark)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(kept, [count(mark) for mark in kept])
    if floor:
        axes.axhline(floor[1], linewidth=2, **pen(None))
        name = _named(floor[0], f"{floor[1]:.1f}")
        axes.annotate(name, (1, floor[1]), (0, 4), ("axes fraction", "data"), "offset points", ha="right", **_small())
    front = best(dots)
    axes.step([dot.x for dot in front], [dot.y for dot in front], where="post", color=SOFT, linewidth=1)
    drawn = []
    for dot in dots:
        look = {**pen(dot.index), "linestyle": ""}
        gid = f"{HINTS}{dot.name}: {dot.told} at {count(dot.x)}"
        if dot.spread:
            edges = [dot.y - dot.spread, min(dot.y + dot.spread, top)]
            axes.plot([dot.x] * 2, edges, color=look["color"], linewidth=2)
        drawn += axes.plot([dot.x], [dot.y], gid=gid, label=_named(dot.name, dot.told), **MARK, **look)
    _legend(chart, drawn)
    return chart


def best(dots: Sequence[Dot]) -> list[Dot]:
    """Those that no other beats in both: no fewer of x and at least as much y, by rising x."""
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, -dot.y)):
        if not front or dot.y > front[-1].y:
            front.append(dot)
    return front


def number_grid(
    title: str,
    rows: Sequence[str],
    values: np.ndarray,
    *,
    full: float,
    x_name: str,
    digits: int = 0,
    signed: bool = False,
) -> Chart:
    """Numbers in cells whose shade grows with their size, up to `full`; blank where nan.

    Args:
        title: over the grid.
        rows: the names of the rows.
        values: (rows, T).
        full: the value of the deepest shade.
        x_name: what the columns are.
        digits: after the point.
        signed: whether a warm hue stands for what is above zero, and the other one for what is below.
    """
    tasks = values.shape[1]
    shown = [shortened(name, 24) for name in rows]
    left = 14 + LETTER * max(map(len, shown))
    cell = min(max((WIDTH - left) / tasks, 14.0), 40.0)
    tall, top = min(max(cell, 20.0), 32.0), (50.0 if title else 24.0)
    wide = max(left + cell * tasks + 2, LETTER * len(title) + 4, left + LETTER * len(x_name))
    chart = Chart((wide / INCH, (top + tall * len(rows) + 26) / INCH))
    axes = panel(chart, (left, top, cell * tasks, tall * len(rows)))
    shade(axes, values, full, digits if cell >= 9 * (2 + digits + (digits > 0)) else None, signed)
    every = max(1, math.ceil(22 / cell))
    axes.set_xticks(range(0, tasks, every), [str(t + 1) for t in range(0, tasks, every)], **_small())
    axes.set_yticks(range(len(rows)), shown, fontsize=13, color=INK)
    axes.annotate(x_name, (0, 0), (0, -14), "axes fraction", "offset points", **_small())
    chart.text(0, 1, title, fontsize=13, va="top", color=INK)
    return chart


def panel(chart: Chart, box: tuple[float, float, float, float]) -> Any:
    """Bare axes at a place in pixels: left, top, width and height; rows count downwards, columns from the left."""
    wide, tall = (INCH * side for side in chart.get_size_inches())
    left, top, width, height = box
    axes = chart.add_axes((left / wide, 1 - (top + height) / tall, width / wide, height / tall))
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, top=False, labeltop=True, labelbottom=False, pad=5)
    return axes


def shade(axes: Any, values: np.ndarray, full: float, digits: int | None, signed: bool = False) -> Any:
    """Fills bare axes with cells, and writes their numbers unless `digits` is None; returns the cells."""
    colours = LinearSegmentedColormap.from_list("", [*HEAT[::-1], *WARM] if signed else HEAT)
    edges = [np.arange(size + 1) - 0.5 for size in values.shape[::-1]]
    look = {"cmap": colours, "vmin": -full if signed else 0, "vmax": full, "edgecolors": PAPER, "linewidth": 1.5}
    cells = axes.pcolormesh(*edges, np.ma.masked_invalid(values), **look)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            axes.add_patch(Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, facecolor="none", edgecolor=GRID))
        elif digits is not None:
            number = "0" if value == 0 else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
            axes.text(column, row, number, fontsize=12, ha="center", va="center_baseline", color=INK)
    return cells


MARK: dict[str, Any] = {"linewidth": 2, "markersize": 8, "markeredgecolor": PAPER, "markeredgewidth": 0.8}


def _small() -> dict[str, Any]:
    return {"fontsize": 12, "color": SOFT}


def _named(name: str, told: str) -> str:
    return f"{shortened(name, LONGEST)}: {told}" if told else shortened(name, LONGEST)


def _columns(names: Sequence[str]) -> int:
    return max(1, int(WIDTH // (48 + LETTER * max(map(len, names)))))


def _plot(names: Sequence[str], y_name: str, x_name: str) -> tuple[Chart, Any]:
    """A chart with room for a legend of these names, and its axes."""
    height = TOP + PLOT + AXIS + ROW * math.ceil(len(names) / _columns(names))
    chart = Chart((WIDTH / INCH, height / INCH))
    axes: Any = panel(chart, (LEFT, TOP, WIDTH - LEFT - RIGHT, PLOT))
    axes.tick_params(labeltop=False, labelbottom=True, labelsize=12, labelcolor=SOFT)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_name, **_small())
    chart.text(0, 1, y_name, va="top", **_small())
    return chart, axes


def _rise(axes: Any, low: float, high: float) -> tuple[float, float]:
    """Sets round ticks from at most `low` to at least `high`, and returns the first and the last."""
    marks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(max(low, 0), high)
    marks = [float(mark) for mark in marks if mark <= 100 or high > 100]
    axes.yaxis.set_major_locator(FixedLocator(marks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(marks[0], marks[-1])
    return marks[0], marks[-1]


def _legend(chart: Chart, drawn: Sequence[Artist]) -> None:
    names = [str(artist.get_label()) for artist in drawn]
    rows = math.ceil(len(names) / _columns(names))
    place = (0, (ROW * rows + 4) / (INCH * chart.get_figheight()))
    look: dict[str, Any] = {"frameon": False, "borderpad": 0, "borderaxespad": 0, "handlelength": 2.2}
    chart.legend(
        handles=list(drawn),
        loc="upper left",
        bbox_to_anchor=place,
        ncols=_columns(names),
        fontsize=12,
        labelcolor=INK,
        labelspacing=(ROW - 14) / 12,
        **look,
    )
