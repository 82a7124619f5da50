"""Formulas as MathML, which browsers show without a script or a font of their own."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
"""What the Markdown extension leaves of a formula: within a line, or in a block of its own."""


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Replaces every formula of a page."""
    return FORMULA.sub(_mathml, html)


def _mathml(found: re.Match[str]) -> str:
    tag, kind, formula = found.groups()
    block = kind == "["
    return f'<{tag} class="formula">{convert(html.unescape(formula), display="block" if block else "inline")}</{tag}>'
