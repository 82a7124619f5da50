"""The report's Markdown as HTML: one text has both forms, and what is in the one is in the other.

CommonMark with tables, by markdown-it; HTML in the text is shown as it is. A heading gets an anchor, and a table or a
fence a frame in which it scrolls. The first cell of a row is its heading. A paragraph of images becomes the figures.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from experiments.report.svg import Figure

LONG = 22
"""Characters of a row's name past which it is broken into lines."""
_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")


def to_html(markdown: str, figures: Mapping[str, Figure]) -> str:
    """The blocks as HTML, without a page around them.

    Args:
        markdown: any CommonMark text, with pipe tables.
        figures: by the source under which an image names them; they stand inline.

    Raises:
        KeyError: an image that is not among the figures; a page may not fetch anything.
    """
    tokens = _PARSER.parse(markdown)
    used: set[str] = set()
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrs["id"] = anchor(tokens[place + 1].content, used)
    shown = [*_framed(list(_with_figures(tokens, figures)))]
    return _PARSER.renderer.render(shown, _PARSER.options, {})


def anchor(text: str, used: set[str]) -> str:
    """An identifier of a heading's own, made of its words.

    >>> taken: set[str] = set()
    >>> anchor("Accuracy matrices", taken), anchor("Accuracy: matrices!", taken)
    ('accuracy-matrices', 'accuracy-matrices-2')
    """
    base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}-{number}"
    used.add(name)
    return name


def _with_figures(tokens: Sequence[Token], figures: Mapping[str, Figure]) -> Iterator[Token]:
    """The tokens, with the figures in place of paragraphs that hold images alone."""
    ends = 0
    for place, token in enumerate(tokens):
        images = _images(tokens[place + 1]) if token.type == "paragraph_open" else []
        if images:
            shown = [_figure(figures[source]) for source in images]
            yield _raw(shown[0] if len(shown) == 1 else f'<div class="grid">{"".join(shown)}</div>')
            ends = place + 3
        if place >= ends:
            yield token


def _images(line: Token) -> list[str]:
    """The sources of a line's images, if it has nothing else."""
    children = [child for child in line.children or () if child.type != "softbreak"]
    return [str(child.attrs["src"]) for child in children] if all(c.type == "image" for c in children) else []


def _figure(figure: Figure) -> str:
    return f'<figure id="figure-{figure.name}">{figure.svg}<figcaption>{escape(figure.caption)}</figcaption></figure>'


def _framed(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens, with a frame around tables and fences, and with what a cell is for."""
    column, body = 0, False
    for place, token in enumerate(tokens):
        if token.type == "fence":
            yield _raw(f'<pre class="scroll" tabindex="0"><code>{escape(token.content.rstrip())}</code></pre>')
            continue
        if token.type == "table_open":
            heads = [t.content for t in tokens[place : place + 16] if t.type == "inline"]
            label = escape(f"Table: {', '.join(re.sub(r'[`*]', '', head) for head in heads[:4])}")
            yield _raw(f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">')
        elif token.type in ("thead_open", "tbody_open"):
            body = token.type == "tbody_open"
        elif token.type == "tr_open":
            column = 0
        elif token.type in ("th_open", "td_open"):
            told = token.attrs.get("style") == "text-align:left"
            token.attrs = _cell(tokens[place + 1].content, column, body, told)
            column += 1
        if token.type in ("td_open", "td_close") and column == 1:
            token.tag = "th"
        yield token
        if token.type == "table_close":
            yield _raw("</div>")


def _cell(text: str, column: int, body: bool, told: bool) -> dict[str, str | int | float]:
    """A cell's attributes: which line it is the heading of; long names and sentences wrap, numbers do not.

    Args:
        text: of the cell.
        column: its number, from 0.
        body: whether it stands below the table's head.
        told: whether its column is one of texts.
    """
    if column == 0 and body:
        return {"scope": "row", **({"class": "long"} if len(text) > LONG else {})}
    words = {"class": "text"} if column and (told or (body and text.count(" ") > 4)) else {}
    return {**({} if body else {"scope": "col"}), **words}


def _raw(html: str) -> Token:
    return Token("html_block", "", 0, content=f"{html}\n", block=True)
