"""One picture per suite: every case's median with its quartiles' range, grouped by what is measured."""

from pathlib import Path
from typing import Any

from experiments.report.theme import COLOURS, FONT, GRID, INK, SOFT, heading

SYSTEMS = ("share_jax", "PEFT", "torch", "lorashare", "vlora")


def groups_of(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by what stands before the last colon of their case.

    >>> list(groups_of([{"case": "vit: step"}, {"case": "vit: forward"}, {"case": "step"}]))
    ['vit', '']
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in results:
        found.setdefault(row["case"].rpartition(": ")[0], []).append(row)
    return found


def plot(found: dict[str, Any], path: Path) -> None:
    """Draws a document's results as horizontal bars, one panel per group, and writes a PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    groups = groups_of(found["results"])
    rows = sum(len(group) for group in groups.values())
    height = 1.1 + 0.23 * rows + 0.62 * len(groups)
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(9.0, height))
        machine = found.get("machine", {})
        heading(
            figure,
            f"Suite {found['suite']}: medians, with the interquartile range",
            f"{machine.get('processor', '')}, {machine.get('threads', '?')} threads",
        )
        top = 1 - 0.75 / height
        for name, group in groups.items():
            size = 0.23 * len(group) / height
            top -= 0.28 / height
            axes = figure.add_axes((0.42, top - size, 0.48, size))
            _panel(axes, name, group)
            top -= size + 0.34 / height
        figure.savefig(path, dpi=110)


def _three(value: float) -> str:
    """Three digits, or all before the point.

    >>> _three(1204.4), _three(12.345), _three(0.5)
    ('1,204', '12.3', '0.5')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _panel(axes: Any, name: str, group: list[dict[str, Any]]) -> None:
    largest = max(row["median_s"] for row in group)
    unit, factor = ("s", 1.0) if largest >= 2 else ("ms", 1e3)
    for place, row in enumerate(group):
        system = row["system"]
        colour = COLOURS[SYSTEMS.index(system)] if system in SYSTEMS else SOFT
        middle = factor * row["median_s"]
        axes.barh(place, middle, height=0.72, color=colour)
        spread = factor * row["iqr_s"] / 2
        axes.plot([middle - spread, middle + spread], [place, place], color=INK, lw=1)
        said = f"{'> ' if 'not_ended_s' in row else ''}{_three(middle)} {unit}"
        axes.text(middle + spread + factor * largest * 0.012, place, said, va="center", fontsize=7.5)
    labels = [f"{row['case'].rpartition(': ')[2]}  ({row['system']})" for row in group]
    axes.set_yticks(range(len(group)), labels, fontsize=7.5)
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * factor * max(row["median_s"] + row["iqr_s"] / 2 for row in group))
    axes.tick_params(axis="x", labelsize=7, colors=SOFT)
    axes.grid(axis="x", color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(name, fontsize=8.5, loc="left", color=INK, fontweight="bold", x=-0.85)
