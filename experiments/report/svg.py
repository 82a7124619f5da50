"""A matplotlib figure as inline SVG: text stays text, nothing is fetched, and the same figure gives the same bytes.

Colours become the theme's CSS variables, so that a figure follows the reader's light or dark theme within a page, and
by `STYLE` of its own as a file. An artist's gid says what a browser shows when the pointer rests on it: one text, or
one for the artist and one for each of its markers, with `HINTS` between them.
"""

import io
import math
import re
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure as Chart

from experiments.report.theme import FONT, SOFT, STYLE, THEME, VARIABLES

HINTS = "\u2029"
MARGIN = 12
"""Of a figure in a file, in units of the drawing."""
_VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR, _FONT = re.compile("|".join(VARIABLES)), re.compile(r"font: (?:\S+ )*?([\d.]+px) [^;]*")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of its file, and of its place on the page; letters, digits and hyphens.
        svg: the element as text.
        alt: what it shows, for screen readers.
        caption: how it is read.
    """

    name: str
    svg: str
    alt: str
    caption: str

    def file(self) -> str:
        """The figure as a file that stands alone, on paper of its own: the page's theme need not be the system's."""
        paper = "svg.fig{background:var(--paper)}"
        styled = self.svg.replace(">", f"><style>{THEME}{STYLE}{paper}</style>", 1)
        return _VIEW.sub(_with_margin, styled, count=1) + "\n"


def _with_margin(view: re.Match[str]) -> str:
    width, height = (float(part) + 2 * MARGIN for part in view.groups())
    return f'viewBox="{-MARGIN} {-MARGIN} {width:g} {height:g}"'


def figure_of(name: str, chart: Chart, alt: str, caption: str) -> Figure:
    """The figure of a chart.

    Args:
        name: unlike that of any other figure of the page.
        chart: drawn in colours of the light theme, in inches of 72 pixels.
        alt: what it shows.
        caption: how it is read.
    """
    return Figure(name, _svg_of(chart, name, alt), alt, caption)


def _svg_of(chart: Chart, name: str, alt: str) -> str:
    chart.patch.set_visible(False)
    for artist in chart.findobj():
        artist.set_clip_on(False)  # a clip path would be a reference, and nothing is drawn outside
    buffer = io.StringIO()
    with mpl.rc_context({**FONT, "svg.fonttype": "none", "svg.hashsalt": name}):
        chart.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    shown = {"class": "fig", "role": "img", "aria-label": alt, "viewBox": f"0 0 {width:g} {height:g}"}
    root.attrib.clear()
    root.attrib.update(shown, style=f"width:100%;max-width:{math.ceil(1.3 * width)}px;height:auto")
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    used = {each.attrib[_HREF][1:] for each in root.iter() if _HREF in each.attrib}
    for each in list(root.iter()):
        _themed(each, used)
    ElementTree.register_namespace("", _SVG)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _themed(element: ElementTree.Element, used: set[str]) -> None:
    """The element in the theme's colours and the page's font, with hints in place of ids that nothing uses."""
    style = element.attrib.get("style", "")
    if _HREF in element.attrib:
        element.attrib["href"] = element.attrib.pop(_HREF)
    if element.tag == f"{{{_SVG}}}text" and SOFT in style:
        element.attrib["class"] = "soft"
    if style:
        element.attrib["style"] = _COLOUR.sub(lambda found: VARIABLES[found[0]], _FONT.sub(r"font-size: \1", style))
    if (own := element.attrib.get("id")) is not None and own not in used:
        del element.attrib["id"]
        if own.startswith(HINTS):
            whole, *each = own[1:].split(HINTS)
            marks = [found for found in element.iter() if "href" in found.attrib or _HREF in found.attrib]
            for mark, text in [(element, whole), *zip(marks, each, strict=False)]:
                title = ElementTree.Element(f"{{{_SVG}}}title")
                title.text = text
                mark.insert(0, title)
