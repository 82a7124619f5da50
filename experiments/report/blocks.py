"""Blocks of Markdown: a table, text that is shown as it is, and a number with its deviation."""

import re
from collections.abc import Callable, Container, Iterable, Sequence

_MARKUP = re.compile(r"[\\`*\[\]<>|#~]|&(?=#?\w+;)|(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])")


def spread(write: Callable[[float | None], str], mean: float | None, deviation: float | None) -> str:
    """A mean and, where there is one, its deviation.

    >>> spread("{:.1f}".format, 2.0, 0.25), spread("{:.1f}".format, 2.0, None)
    ('2.0 ± 0.2', '2.0')
    """
    return write(mean) if deviation is None else f"{write(mean)} ± {write(deviation)}"


def text(value: str) -> str:
    """Text that Markdown shows as it is, on one line; an underscore within a word needs no escape.

    >>> text("shared_a *") == "shared_a " + chr(92) + "*"
    True
    """
    return _MARKUP.sub(_escape, " ".join(value.split()))


def _escape(found: re.Match[str]) -> str:
    return "".join(f"\\{letter}" for letter in found.group())


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Container[int] = (0,)) -> str:
    """A Markdown table: the columns of `left` to the left, numbers to the right.

    >>> print(table(("a", "b"), [("x", "1")]))
    | a | b |
    | :-- | --: |
    | x | 1 |
    """
    lines = [head, [":--" if column in left else "--:" for column in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
