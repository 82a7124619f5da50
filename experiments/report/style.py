"""How the figures look: colours, markers and labels that stay apart in print and for colour-blind readers."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.report.cells import shortened

INK = "#222222"
FAINT = "#8a8a8a"
GRID = "#e3e3e3"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A5195")
"""Okabe and Ito's colours (yellow left out: too faint on white) and a violet."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
BASELINES = ("majority", "majority_class")
"""Names of the method that always answers the commonest class: drawn dashed, in grey."""

FONT: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 9.0, "axes.edgecolor": FAINT, "text.color": INK}


def pen(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the line number `index`: 8 by colour and marker, then other dashes."""
    dashes = ("-", (0, (5, 1.5)), (0, (1, 1)))
    turn = index % len(COLOURS)
    return {"color": COLOURS[turn], "marker": MARKERS[turn], "linestyle": dashes[index // len(COLOURS) % 3]}


def broken(name: str, width: int = 26) -> str:
    """A name on at most two lines of `width` characters, broken after a separator, shortened in the middle.

    >>> broken("rec.autos")
    'rec.autos'
    >>> broken("comp.os.ms-windows.misc+rec.sport.hockey").split(chr(10))
    ['comp.os.ms-windows.misc+', 'rec.sport.hockey']
    >>> broken("x" * 60).split(chr(10))
    ['xxxxxxxxxxxxxxxxxxxxxxxxxx', 'xxxxxxxxxxxx…xxxxxxxxxxxxx']
    """
    if len(name) <= width:
        return name
    places = [i + 1 for i, letter in enumerate(name[:width]) if not letter.isalnum()]
    strong = [place for place in places if name[place - 1] in "+/, "]
    cut = max(strong or places, default=width)
    cut = cut if len(name) - cut <= width or cut >= width // 2 else width
    first, second = name[:cut].rstrip(), name[cut:].lstrip()
    return f"{first}\n{shortened(second, width)}"


def spread_out(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves label positions apart to at least `gap`, as little as needed and kept in order, within `low` to `high`.

    >>> spread_out([0.5, 0.5, 0.9], 0.1, 0.0, 1.0)
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    groups: list[tuple[float, int]] = []  # (centre, members), each group's labels `gap` apart
    for index in order:
        centre, members = positions[index], 1
        while True:
            half = gap * (members - 1) / 2
            centre = min(max(centre, low + half), high - half)
            if not groups or groups[-1][0] + gap * (groups[-1][1] - 1) / 2 + gap <= centre - half + 1e-12:
                break
            other, others = groups.pop()
            centre, members = (centre * members + other * others) / (members + others), members + others
        groups.append((centre, members))
    placed = [centre + gap * (i - (members - 1) / 2) for centre, members in groups for i in range(members)]
    moved = dict(zip(order, placed, strict=True))
    return [round(moved[i], 9) for i in range(len(positions))]


def heading(figure: Figure, title: str, subtitle: str, left: float = 0.02) -> None:
    """A title and a line under it at the top left, placed in inches so that any height looks alike."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.16 / height, title, fontsize=12.5, fontweight="bold", va="top")
    figure.text(left, 1 - 0.43 / height, subtitle, fontsize=9, color="#555555", va="top")
