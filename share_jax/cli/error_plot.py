"""Error against bytes as a PNG, drawn by Matplotlib where that is installed."""

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from share_jax.adapter_set.advice import frontier
from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.storage.atomic_write import replace_bytes

COLOURS = {"f32": "#0072b2", "bf16": "#e69f00", "int8": "#009e73"}
"""By storage; readable without telling red from green."""
_LINES = {("one", "columns"): "-", ("one", "flat"): "--", ("split", "columns"): "-.", ("split", "flat"): ":"}
_LEAST = 1e-4
"""Errors below this are drawn there: full bases lose a rounding's worth."""


def write_plot(path: Path, rows: Sequence[PlanRow], bytes_in: int, title: str) -> None:
    """Draws one line for each way to compress, with the null and the cut of the first way in grey.

    Args:
        path: absolute; written in one step.
        rows: of a plan.
        bytes_in: of the adapters, marked by a line.
        title: what stands above.
    """
    # optional and slow to load: only a command that draws waits for it
    from matplotlib.figure import Figure

    lines: dict[tuple[str, str, str], list[PlanRow]] = defaultdict(list)
    for row in rows:
        lines[row.sets, row.geometry, row.storage].append(row)
    figure = Figure((8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for (sets, geometry, storage), own in lines.items():
        label = f"{geometry}, {storage}" + (", a set for each start" if sets == "split" else "")
        axes.plot(
            *_points(frontier(own), "error"), _LINES[sets, geometry], color=COLOURS[storage], marker=".", label=label
        )
    first = sorted(next(iter(lines.values())), key=lambda row: row.bytes)
    axes.plot(*_points(first, "null"), color="0.5", label="random adapters of the same spectra")
    axes.plot(*_points(first, "cut"), color="0.5", linestyle=":", label="each adapter cut alone")
    axes.axvline(bytes_in, color="0.8", zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="bytes (the vertical line: the adapters)", title=title,
             ylabel="mean relative error of an update")  # fmt: skip
    axes.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    replace_bytes(out.getvalue(), path)


def _points(rows: Sequence[PlanRow], what: str) -> tuple[list[int], list[float]]:
    return [row.bytes for row in rows], [max(getattr(row, what), _LEAST) for row in rows]
