"""How the figures and the page look: colours on light and on dark paper that stay apart for colour-blind readers."""

from typing import Any

from matplotlib.figure import Figure

LIGHT = {
    "ink": "#1d2127",
    "soft": "#59616c",
    "grid": "#e1e4e8",
    "paper": "#ffffff",
    "raised": "#f5f6f8",
    "link": "#005a9c",
    "heat": "#2c8fcb",
    "warm": "#e2762f",
}
DARK = {
    "ink": "#e6e8eb",
    "soft": "#a3abb6",
    "grid": "#343a43",
    "paper": "#14171c",
    "raised": "#1d2128",
    "link": "#7cc0ff",
    "heat": "#2478b8",
    "warm": "#b2571c",
}
SERIES = (
    ("#0072b2", "#5db3f0"),
    ("#c44e00", "#ff9259"),
    ("#00805d", "#3dd6a5"),
    ("#b14e8a", "#ee9bcb"),
    ("#9a6a00", "#f0b840"),
    ("#2e8bc0", "#8cd3ff"),
    ("#222222", "#f2f2f2"),
    ("#7a5195", "#c0a2dd"),
)
"""Colours after Okabe and Ito, on light and on dark paper, each at least 3 to 1 against it."""

COLOURS = tuple(light for light, _ in SERIES)
INK, SOFT, GRID, PAPER = (LIGHT[name] for name in ("ink", "soft", "grid", "paper"))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", (0, (3.5, 1.5)), (0, (1, 1.5)))
BASELINES = ("majority", "majority_class")
"""Names of the method that always answers the commonest class: drawn dashed, in grey."""

FONT: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 9.0, "text.color": INK}


def _named(theme: int) -> dict[str, str]:
    return {**(LIGHT, DARK)[theme], **{f"c{i}": pair[theme] for i, pair in enumerate(SERIES)}}


def _variables(theme: int) -> str:
    return "".join(f"--{name}:{value};" for name, value in _named(theme).items())


VARIABLES = {value: f"var(--{name})" for name, value in _named(0).items()}
"""The CSS variable that stands for a colour of the light theme."""

THEME = (
    f":root{{color-scheme:light dark;{_variables(0)}}}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}\n"
)
"""The variables of both themes."""

STYLE = (
    "svg.fig{display:block}svg.fig *{stroke-linejoin:round;stroke-linecap:butt}\n"
    "svg.fig text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "font-variant-numeric:tabular-nums}\n"
)
"""How the figures look, given the variables."""


def pen(index: int | None) -> dict[str, Any]:
    """Colour, marker and dash of a line: 8 by colour and marker, then other dashes; grey and dashed for None."""
    if index is None:
        return {"color": SOFT, "marker": "", "linestyle": (0, (2, 1.5))}
    turn = index % len(SERIES)
    return {"color": COLOURS[turn], "marker": MARKERS[turn], "linestyle": DASHES[index // len(SERIES) % len(DASHES)]}


def heading(figure: Figure, title: str, subtitle: str, left: float = 0.02) -> None:
    """A title and a line under it at the top left, placed in inches so that any height looks alike."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.16 / height, title, fontsize=12.5, fontweight="bold", va="top", color=INK)
    figure.text(left, 1 - 0.43 / height, subtitle, fontsize=9, color=SOFT, va="top")
