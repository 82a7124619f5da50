"""Error against bytes as a PNG, drawn by Matplotlib where that is installed."""

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from share_jax.adapter_set.advice import frontier
from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.cli.report import counted, megabytes
from share_jax.storage.atomic_write import replace_bytes

COLOURS = {"f32": "#0072b2", "bf16": "#e69f00", "int8": "#009e73"}
"""By storage; readable without telling red from green."""
_LINES = {("one", "columns"): "-", ("one", "flat"): "--", ("split", "columns"): "-.", ("split", "flat"): ":"}
_LEAST = 1e-4
"""Errors below this are drawn there: full bases lose a rounding's worth."""
_FULL = 0.1
"""The axis of errors spans at least this ratio: small differences shall not look large."""


def write_plot(
    path: Path, rows: Sequence[PlanRow], bytes_in: int, count: int, aim: float, best: PlanRow | None
) -> None:
    """Draws one line for each way to compress, with the null and the cut of one of them in grey.

    Args:
        path: absolute; written in one step.
        rows: of a plan.
        bytes_in: of the adapters, marked by a line.
        count: how many adapters there are.
        aim: the error that the advice aims for, marked by a line.
        best: the row that is advised, marked by a ring, if any is.
    """
    # optional and slow to load: only a command that draws waits for it
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    lines: dict[tuple[str, str, str], list[PlanRow]] = defaultdict(list)
    for row in rows:
        lines[_way(row)].append(row)
    figure = Figure((9, 5.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for (sets, geometry, storage), own in lines.items():
        label = _words(own[0])
        axes.plot(
            *_points(frontier(own), "error"), _LINES[sets, geometry], color=COLOURS[storage], marker=".", label=label
        )
    shown = compared(rows, best)
    compared_rows = sorted(lines[_way(shown)], key=lambda row: row.bytes)
    axes.plot(*_points(compared_rows, "null"), color="0.45", marker=".", label=f"random adapters ({_words(shown)})")
    axes.plot(
        *_points(compared_rows, "cut"),
        color="0.45",
        linestyle=":",
        marker=".",
        label=f"each cut alone ({shown.storage})",
    )
    if best is not None:
        axes.plot(*_points([best], "error"), "o", markersize=13, markerfacecolor="none", color="black", label="advised")
    axes.axvline(bytes_in, color="0.7", zorder=0)
    axes.axhline(max(aim, _LEAST), color="0.7", linewidth=0.8, linestyle="--", zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="bytes on disk", ylabel="mean relative error of an update",
             title=f"{counted(count)}: what a compressed set takes, and what it loses")  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, _FULL * high), high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.annotate(f"the adapters: {megabytes(bytes_in)} ", (bytes_in, 0.98), xycoords=("data", "axes fraction"),
                  rotation=90, ha="right", va="top", fontsize=8, color="0.35")  # fmt: skip
    axes.annotate(f"aimed at: {aim:g}", (0.01, max(aim, _LEAST)), xycoords=("axes fraction", "data"), ha="left",
                  va="bottom", fontsize=8, color="0.35")  # fmt: skip
    figure.legend(fontsize=8, loc="outside right upper")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    replace_bytes(out.getvalue(), path)


def compared(rows: Sequence[PlanRow], best: PlanRow | None) -> PlanRow:
    """A row of the way whose null and cut are drawn: the advised one, else the one that others beat the least."""
    if best is not None:
        return best
    shown = frontier(rows)
    return max(shown, key=lambda row: sum(_way(row) == _way(other) for other in shown))


def _way(row: PlanRow) -> tuple[str, str, str]:
    return row.sets, row.geometry, row.storage


def _words(row: PlanRow) -> str:
    return f"{row.geometry}, {row.storage}" + (", a set for each start" if row.sets == "split" else "")


def _short(count: float) -> str:
    """Bytes for an axis.

    >>> _short(2e5), _short(1.5e6), _short(500)
    ('200 kB', '1.5 MB', '500 B')
    """
    unit, size = next(
        ((unit, size) for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= size), ("B", 1)
    )
    return f"{count / size:g} {unit}"


def _points(rows: Sequence[PlanRow], what: str) -> tuple[list[int], list[float]]:
    return [row.bytes for row in rows], [max(getattr(row, what), _LEAST) for row in rows]
