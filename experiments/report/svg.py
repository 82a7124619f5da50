"""Small inline SVG: elements as text, the theme's colours as classes, and the parts that every chart has.

Text stays text, nothing is fetched, and the same input gives the same bytes. Colours are CSS variables, so that a
figure follows the reader's light or dark theme within a page, and by `STYLE` of its own as a file.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

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

DASHES = ("none", "7 3", "2 3")
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "M-3.6 -3.6h7.2v7.2h-7.2z",
    "M0 -4.6L4.4 3.6H-4.4z",
    "M0 -5L5 0L0 5L-5 0z",
    "M0 4.6L4.4 -3.6H-4.4z",
    "M-1.6 -4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M-4.6 -2.6L-2.6 -4.6L0 -2L2.6 -4.6L4.6 -2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0z",
    "M-4.6 0L3.6 -4.4V4.4z",
)
LETTER = 7.0
"""Pixels that a letter of 13 px takes, generously."""


def _variables(colours: dict[str, str], theme: int) -> str:
    named = {**colours, **{f"c{i}": pair[theme] for i, pair in enumerate(SERIES)}}
    return "".join(f"--{name}:{value};" for name, value in named.items())


THEME = (
    f":root{{color-scheme:light dark;{_variables(LIGHT, 0)}}}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK, 1)}}}}}\n"
)
"""The variables of both themes."""

STYLE = (
    "svg.fig text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink);"
    "font-variant-numeric:tabular-nums}\n"
    "svg.fig .small{font-size:12px}\nsvg.fig .soft{fill:var(--soft)}\nsvg.fig .end{text-anchor:end}\n"
    "svg.fig .mid{text-anchor:middle}\nsvg.fig .rule{stroke:var(--grid);stroke-width:1}\n"
    "svg.fig .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}\n"
    "svg.fig .mark{fill:currentColor;stroke:var(--paper);stroke-width:.8}\n"
    "svg.fig .band{fill:currentColor;opacity:.16}\nsvg.fig .faint{color:var(--soft)}\n"
    "svg.fig .blank{fill:none;stroke:var(--grid)}\nsvg.fig .heat{fill:var(--heat)}\nsvg.fig .warm{fill:var(--warm)}\n"
    + "".join(f"svg.fig .c{i}{{color:var(--c{i})}}\n" for i in range(len(SERIES)))
)
"""How the figures look, given the variables."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of its file, and of its place on the page; letters, digits and hyphens.
        svg: the element as text.
        alt: what it shows, for who does not see it.
        caption: how it is read.
    """

    name: str
    svg: str
    alt: str
    caption: str

    def file(self) -> str:
        """The figure as a file that stands alone."""
        return self.svg.replace(">", f"><style>{THEME}{STYLE}</style>", 1) + "\n"


def element(kind: str, *children: str, **attributes: object) -> str:
    """One element; `cls` is its class, an underscore in a name a hyphen, numbers are cut to tenths of a pixel."""
    named = {("class" if key == "cls" else key.replace("_", "-")): value for key, value in attributes.items()}
    text = "".join(f' {key}="{escape(_written(value))}"' for key, value in named.items() if value is not None)
    return f"<{kind}{text}>{''.join(children)}</{kind}>" if children else f"<{kind}{text}/>"


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0").replace("-0", "0" if abs(value) < 0.05 else "-0")
    return str(value)


def words(text: str, x: float, y: float, cls: str | None = None) -> str:
    """A line of text with its baseline's start, middle or end at (x, y)."""
    return element("text", escape(text), x=float(x), y=float(y), cls=cls)


def hint(text: str) -> str:
    """What a browser shows when the pointer rests on the parent."""
    return element("title", escape(text))


def path(points: Iterable[tuple[float, float]], close: bool = False) -> str:
    """The `d` of a polyline."""
    parts = [f"{_written(float(x))} {_written(float(y))}" for x, y in points]
    return f"M{'L'.join(parts)}{'Z' if close else ''}"


def drawing(width: float, height: float, label: str, *children: str) -> str:
    """The whole SVG element; it takes the width that it is given, up to 1.3 times its own."""
    return element(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        cls="fig",
        role="img",
        aria_label=label,
        viewBox=f"0 0 {_written(float(width))} {_written(float(height))}",
        style=f"width:100%;max-width:{math.ceil(1.3 * width)}px;height:auto",
    )


def look(index: int) -> tuple[str, str, str]:
    """Class, dash and marker of the series number `index`: 8 by colour and marker, then other dashes."""
    turn = index % len(SERIES)
    return f"c{turn}", DASHES[index // len(SERIES) % len(DASHES)], MARKERS[turn]


def marker(shape: str, x: float, y: float, text: str | None = None) -> str:
    """A marker at a point."""
    where = f"translate({_written(float(x))} {_written(float(y))})"
    return element("path", *([hint(text)] if text else []), d=shape, cls="mark", transform=where)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at most `low` to at least `high`.

    >>> ticks(0, 97.0), ticks(0, 0.031)
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.0, 0.01, 0.02, 0.03, 0.04])
    """
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / (most - 1)) + 1e-9)
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= most - 1 + 1e-9)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, max(last, first + 1) + 1)]


def legend(entries: Sequence[tuple[str, str]], width: float, top: float) -> tuple[str, float]:
    """Keys with their names, as many in a row as fit; and the y below them.

    Args:
        entries: an SVG key, drawn around (0, 0) within 14 px to both sides, and a name.
        width: of the figure.
        top: y of the first row.
    """
    columns = max(1, int(width // (40 + LETTER * max((len(name) for _, name in entries), default=1))))
    slot, parts = width / columns, []
    for index, (key, name) in enumerate(entries):
        x, y = slot * (index % columns), top + 20 * (index // columns)
        parts.append(element("g", key, transform=f"translate({_written(x + 16)} {_written(y - 4.5)})"))
        parts.append(words(name, x + 36, y))
    return "".join(parts), top + 20 * -(-len(entries) // columns)
