"""The Markdown that the report writes, as HTML: one text has both forms, and what is in the one is in the other.

Only what `experiments.report.markdown` writes is known: headings, paragraphs, pipe tables, fenced code, images on lines
of their own, and in a line of text `code`, **bold** and backslash escapes. Everything else is shown as it is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from experiments.report.svg import Figure

_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<src>\S+?)(?: \"(?P<title>[^\"]*)\")?\)")
_INLINE = re.compile(r"\\(?P<escaped>[!-/:-@\[-`{-~])|`(?P<code>[^`]+)`|\*\*(?P<bold>(?:\\.|[^*])+)\*\*")
_CELL = re.compile(r"(?<!\\)\|")
LONG = 22
"""Characters of a row's name past which it is broken into lines."""


def to_html(markdown: str, figures: Mapping[str, Figure]) -> str:
    """The blocks as HTML, without a page around them.

    Args:
        markdown: blocks with a blank line between them.
        figures: by the source under which an image names them; they stand inline.

    Raises:
        KeyError: an image that is not among the figures; a page may not fetch anything.
    """
    blocks, out, used = _blocks(markdown), [], set()
    for block in blocks:
        first = block.splitlines()[0]
        if first.startswith("```"):
            code = "\n".join(block.splitlines()[1:-1])
            out.append(f'<pre class="scroll" tabindex="0"><code>{escape(code)}</code></pre>')
        elif heading := re.match(r"(#{1,6}) (.*)", first):
            out.append(_heading(len(heading[1]), heading[2], used))
        elif first.startswith("| "):
            out.append(_table(block.splitlines()))
        elif first.startswith("!["):
            out.append(_images(block, figures))
        else:
            out.append(f"<p>{inline(' '.join(block.splitlines()))}</p>")
    return "\n".join(out)


def inline(text: str) -> str:
    r"""A line of Markdown as HTML.

    >>> inline(r"a < b, `c*d`, **e** and \*f\*")
    'a &lt; b, <code>c*d</code>, <strong>e</strong> and *f*'
    """
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts.append(escape(text[end : found.start()]))
        if found["escaped"]:
            parts.append(escape(found["escaped"]))
        elif found["code"]:
            parts.append(f"<code>{escape(found['code'])}</code>")
        else:
            parts.append(f"<strong>{inline(found['bold'])}</strong>")
        end = found.end()
    return "".join([*parts, escape(text[end:])])


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


def _heading(level: int, text: str, used: set[str]) -> str:
    return f'<h{level} id="{anchor(text, used)}">{inline(text)}</h{level}>'


def _table(lines: Sequence[str]) -> str:
    head, _, *rows = ([cell.strip() for cell in _CELL.split(line)[1:-1]] for line in lines)
    titles = "".join(f'<th scope="col">{inline(cell)}</th>' for cell in head)
    body = "\n".join(_row(row) for row in rows)
    label = escape(f"Table: {', '.join(re.sub(r'[`*]', '', cell) for cell in head[:4])}")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str]) -> str:
    numbers = "".join(f"<td{_kind(cell)}>{inline(cell)}</td>" for cell in cells[1:])
    long = ' class="long"' if len(cells[0]) > LONG else ""
    return f'<tr><th scope="row"{long}>{inline(cells[0])}</th>{numbers}</tr>'


def _kind(cell: str) -> str:
    """Sentences in a cell wrap, numbers do not."""
    return ' class="text"' if cell.count(" ") > 4 else ""


def _images(block: str, figures: Mapping[str, Figure]) -> str:
    shown = [_figure(figures[found["src"]]) for found in _IMAGE.finditer(block)]
    return shown[0] if len(shown) == 1 else f'<div class="grid">{"".join(shown)}</div>'


def _figure(figure: Figure) -> str:
    return f'<figure id="figure-{figure.name}">{figure.svg}<figcaption>{escape(figure.caption)}</figcaption></figure>'


def _blocks(markdown: str) -> Iterator[str]:
    """Blocks between blank lines; a fence's blank lines are its own."""
    block: list[str] = []
    for text in markdown.splitlines():
        fenced = bool(block) and block[0].startswith("```") and (len(block) == 1 or block[-1] != "```")
        if text or fenced:
            block.append(text)
        elif block:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)
