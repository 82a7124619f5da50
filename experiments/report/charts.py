"""Three kinds of chart as SVG: lines over tasks, points in a plane, and a grid of shaded numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.report.cells import count, shortened
from experiments.report.svg import LETTER, drawing, element, hint, legend, look, marker, path, ticks, words

WIDTH = 430.0
LEFT, RIGHT, TOP, PLOT = 54.0, 12.0, 22.0, 226.0
LONGEST = 30
"""Characters of a name that a legend shows."""


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

    def drawn(self) -> tuple[str, str, str]:
        """Class, dash and marker."""
        if self.index is None:
            return "faint", "4 3", ""
        colour, dash, shape = look(self.index)
        return colour, "6 3" if self.dashed else dash, "" if self.dashed else shape


@dataclass(frozen=True)
class Dot:
    """One point: a name, its place, the deviation of `y`, and its look."""

    name: str
    x: float
    y: float
    spread: float | None
    index: int
    told: str


@dataclass(frozen=True)
class _Plane:
    """The plot's corner is (LEFT, TOP); values to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return TOP + PLOT * (self.y_high - value) / (self.y_high - self.y_low)


def line_chart(
    label: str,
    lines: Sequence[Line],
    y_name: str,
    x_name: str,
    *,
    percent: bool = False,
    x_labels: Sequence[str] | None = None,
) -> str:
    """Lines over tasks 1 to T, with bands of a deviation; from 0, or where `percent` from below the lowest to 100.

    Args:
        label: for who does not see it.
        lines: at least one, all of one length.
        y_name: over the vertical axis.
        x_name: under the horizontal one.
        percent: whether the values are percent of something that is best at 100.
        x_labels: what stands at the T places; their numbers when None.
    """
    tasks = len(lines[0].values)
    spreads = [np.zeros(tasks) if line.spread is None else np.nan_to_num(line.spread) for line in lines]
    values = np.array([line.values for line in lines])
    low, high = float(np.nanmin(values - spreads)), float(np.nanmax(values + spreads))
    marks = [t for t in ticks(max(0, low - 0.5), 100) if t <= 100] if percent else ticks(0, max(high, 1e-9))
    plane = _Plane(0.7, max(tasks, 1) + 0.3, marks[0], marks[-1])
    places = [str(t + 1) for t in range(tasks)] if x_labels is None else x_labels
    parts = [*_frame(plane, marks, y_name), *_task_axis(plane, places, x_name)]
    parts += [part for line in sorted(lines, key=lambda line: line.index is not None) for part in _line(plane, line)]
    keys, bottom = legend([(_key(line), _named(line.name, line.told)) for line in lines], WIDTH, TOP + PLOT + 66)
    return drawing(WIDTH, bottom, label, *parts, keys)


def dot_chart(label: str, dots: Sequence[Dot], floor: tuple[str, float] | None, y_name: str, x_name: str) -> str:
    """Points over a logarithmic axis, the best of them joined, and a dashed floor with its name."""
    lows = [dot.y - (dot.spread or 0) for dot in dots] + ([floor[1]] if floor else [])
    marks = [t for t in ticks(max(0, min(lows) - 1), 100) if t <= 100]
    powers = [math.log10(dot.x) for dot in dots]
    plane = _Plane(min(powers) - 0.15, max(powers) + 0.15, marks[0], marks[-1])
    parts = [*_frame(plane, marks, y_name), *_log_axis(plane, x_name)]
    if floor:
        y = plane.y(floor[1])
        parts.append(element("path", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}", cls="line faint", stroke_dasharray="4 3"))
        parts.append(words(_named(floor[0], f"{floor[1]:.1f}"), WIDTH - RIGHT, y - 5, "small soft end"))
    front = [(plane.x(math.log10(dot.x)), plane.y(dot.y)) for dot in best(dots)]
    if len(front) > 1:
        steps = [point for (x, y), (_, up) in zip(front[1:], front, strict=False) for point in ((x, up), (x, y))]
        line = {"d": path([front[0], *steps]), "cls": "line faint", "stroke_width": "1", "style": "stroke-width:1"}
        parts.append(element("path", **line))
    for dot in dots:
        colour, _, shape = look(dot.index)
        x, y = plane.x(math.log10(dot.x)), plane.y(dot.y)
        told = f"{dot.name}: {dot.told} at {count(dot.x)}"
        bar = []
        if dot.spread:
            top, low = plane.y(min(dot.y + dot.spread, plane.y_high)), plane.y(dot.y - dot.spread)
            bar = [element("path", d=f"M{x:.1f} {top:.1f}V{low:.1f}", cls="line")]
        parts.append(element("g", *bar, marker(shape, x, y, told), cls=colour))
    entries = [
        (element("g", marker(look(dot.index)[2], 0, 0), cls=look(dot.index)[0]), _named(dot.name, dot.told))
        for dot in dots
    ]
    keys, bottom = legend(entries, WIDTH, TOP + PLOT + 66)
    return drawing(WIDTH, bottom, label, *parts, keys)


def best(dots: Sequence[Dot]) -> list[Dot]:
    """Those that no other beats in both: no fewer of x and at least as much y, by rising x."""
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, -dot.y)):
        if not front or dot.y > front[-1].y:
            front.append(dot)
    return front


def number_grid(
    label: str,
    title: str,
    rows: Sequence[str],
    values: np.ndarray,
    *,
    full: float,
    x_name: str,
    digits: int = 0,
    warm: bool = False,
) -> str:
    """Numbers in cells whose shade grows with their size, up to `full`; another hue below zero; blank where nan.

    Args:
        label: for who does not see it.
        title: over the grid.
        rows: the names of the rows.
        values: (rows, T).
        full: the value of the deepest shade.
        x_name: what the columns are.
        digits: after the point.
        warm: whether it is the warm hue that stands for what is above zero.
    """
    tasks = values.shape[1]
    shown = [shortened(name, 24) for name in rows]
    left = 14 + LETTER * max(map(len, shown))
    cell = min(max((WIDTH - left) / tasks, 14.0), 40.0)
    tall, top = min(max(cell, 20.0), 32.0), (50.0 if title else 24.0)
    numbered = cell >= 9 * (2 + digits + (digits > 0))
    parts = [words(title, 0, 15)] if title else []
    every = max(1, math.ceil(22 / cell))
    parts += [words(str(t + 1), left + cell * (t + 0.5), top - 6, "small soft mid") for t in range(0, tasks, every)]
    for r, name in enumerate(shown):
        y = top + tall * r
        parts.append(words(name, left - 8, y + tall / 2 + 4.5, "end"))
        for t in range(tasks):
            hue = "warm" if (values[r, t] > 0) == warm else "heat"
            box = (left + cell * t, y, cell, tall)
            parts.append(_cell(values[r, t], box, full, hue, digits if numbered else None))
    bottom = top + tall * len(rows)
    parts.append(words(x_name, left, bottom + 18, "small soft"))
    width = max(left + cell * tasks + 2, LETTER * len(title) + 4, left + 6.2 * len(x_name))
    return drawing(width, bottom + 26, label, *parts)


def _cell(value: float, box: tuple[float, float, float, float], full: float, hue: str, digits: int | None) -> str:
    x, y, wide, tall = box
    sides = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": tall - 2, "rx": 2}
    if np.isnan(value):
        return element("rect", **sides, cls="blank")
    shade = f"{0.04 + 0.76 * min(abs(value) / full, 1.0):.2f}" if value else "0"
    parts = [element("rect", **sides, cls=hue, fill_opacity=shade)]
    if digits is not None:
        text = "0" if value == 0 else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
        parts.append(words(text, x + wide / 2, y + tall / 2 + 4, "small mid"))
    return "".join(parts)


def _named(name: str, told: str) -> str:
    return f"{shortened(name, LONGEST)}: {told}" if told else shortened(name, LONGEST)


def _key(line: Line) -> str:
    colour, dash, shape = line.drawn()
    stroke = element("path", d="M-14 0H14", cls="line", stroke_dasharray=dash)
    return element("g", stroke, marker(shape, 0, 0) if shape else "", cls=colour)


def _frame(plane: _Plane, marks: Sequence[float], y_name: str) -> list[str]:
    parts = [words(y_name, 0, 11, "small soft")]
    for value in marks:
        y = plane.y(value)
        parts.append(element("path", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}", cls="rule"))
        parts.append(words(f"{value:g}", LEFT - 8, y + 4, "small soft end"))
    return parts


def _task_axis(plane: _Plane, places: Sequence[str], x_name: str) -> list[str]:
    shown = range(0, len(places), max(1, -(-len(places) // 14)))
    parts = [words(places[t], plane.x(t + 1), TOP + PLOT + 18, "small soft mid") for t in shown]
    return [*parts, words(x_name, (LEFT + WIDTH - RIGHT) / 2, TOP + PLOT + 36, "small soft mid")]


def _log_axis(plane: _Plane, x_name: str) -> list[str]:
    parts, last = [], -math.inf
    for power in range(math.floor(plane.x_low), math.ceil(plane.x_high) + 1):
        for step in (1, 2, 5):
            value = math.log10(step) + power
            x = plane.x(value)
            if plane.x_low <= value <= plane.x_high and x > last + 44:
                parts.append(words(count(step * 10.0**power), x, TOP + PLOT + 18, "small soft mid"))
                parts.append(element("path", d=f"M{x:.1f} {TOP + PLOT}v4", cls="rule"))
                last = x
    return [*parts, words(x_name, (LEFT + WIDTH - RIGHT) / 2, TOP + PLOT + 36, "small soft mid")]


def _line(plane: _Plane, line: Line) -> list[str]:
    colour, dash, shape = line.drawn()
    known = [t for t in range(len(line.values)) if not np.isnan(line.values[t])]
    points = [(plane.x(t + 1), plane.y(line.values[t])) for t in known]
    parts = []
    if line.spread is not None and len(known) > 1:
        bound = [
            np.clip([line.values[t] + s * line.spread[t] for t in known], plane.y_low, plane.y_high) for s in (1, -1)
        ]
        edges = [[(plane.x(t + 1), plane.y(v)) for t, v in zip(known, side, strict=True)] for side in bound]
        parts.append(element("path", d=path([*edges[0], *edges[1][::-1]], close=True), cls="band"))
    if len(known) > 1:
        parts.append(element("path", hint(line.name), d=path(points), cls="line", stroke_dasharray=dash))
    told = [f"{line.name}, task {t + 1}: {line.values[t]:.4g}" for t in known]
    if shape:
        parts += [marker(shape, x, y, text) for (x, y), text in zip(points, told, strict=True)]
    return [element("g", *parts, cls=colour)] if parts else []
