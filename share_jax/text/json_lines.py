"""A file with one JSON object per line, read strictly: every line that is wrong is named by its number."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeVar

from share_jax.errors import FormatError, InputError, message
from share_jax.storage.untrusted import shown

Made = TypeVar("Made")

STDIN = "-"
"""The path of standard input."""

SHOWN = 10
"""Bad lines that an error lists."""

LONGEST = 64 * 2**20
"""Bytes of a line; what is longer is not read."""

_OBJECT = 'an object such as {"prompt": "...", "completion": "..."}'
_ONE = "write one object per line"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Problem(NamedTuple):
    r"""What is wrong with a line: what it holds, what was expected, and how to fix it.

    Example:
        >>> def price(record):
        ...     return record["price"] if "price" in record else Problem(f"{sorted(record)}", "a price", "add one")
        >>> size = Path("prices.jsonl").write_text('{"price": 3}\n{"cost": 4}\n')
        >>> read_json_lines("prices.jsonl", price)
        Traceback (most recent call last):
        share_jax.errors.FormatError: prices.jsonl line 2: got ['cost'], expected a price; add one
    """

    got: object
    expected: str
    fix: str


class _BadLineError(ValueError):
    """A line that cannot be read, with its problem."""

    def __init__(self, got: object, expected: str, fix: str) -> None:
        super().__init__(got)
        self.problem = Problem(got, expected, fix)


def read_json_lines(
    path: str | os.PathLike[str], make: Callable[[dict[str, Any]], Made | Problem]
) -> tuple[tuple[int, Made], ...]:
    r"""What `make` makes of each line's object, with the number of its line, from 1.

    Blank lines are passed over, a byte order mark and lines that end with CR LF are taken; lines end at "\n" alone.

    Args:
        path: of a UTF-8 file; "-" is standard input.
        make: an object to what it stands for, or to what is wrong with it.

    Raises:
        InputError: there is no such file, it is a folder, or it cannot be read.
        FormatError: a line is wrong, in one line of text; several are listed, up to ten; or there are no lines.

    Example:
        >>> size = Path("prices.jsonl").write_text('{"price": 3}\n\n{"price": 4}\n')
        >>> read_json_lines("prices.jsonl", lambda record: record["price"])
        ((1, 3), (3, 4))
    """
    asked = os.fspath(path)
    path = Path("standard input" if asked == STDIN else asked)
    made: list[tuple[int, Made]] = []
    bad: list[tuple[int, Problem]] = []
    count = 0
    for number, line in _numbered(sys.stdin.buffer) if asked == STDIN else _lines(path):
        if isinstance(line, Problem) or line.strip():
            count += 1
            result = line if isinstance(line, Problem) else _made(line, make)
            if isinstance(result, Problem):
                bad.append((number, result))
            else:
                made.append((number, result))
    if not count:
        raise FormatError(message(str(path), got="no lines", expected=f"{_OBJECT} on each line", fix="add lines to it"))
    _refuse(path, bad, count)
    return tuple(made)


def _lines(path: Path) -> Iterator[tuple[int, bytes | Problem]]:
    """The lines of a file with their numbers; one that cannot be read any further ends with the problem."""
    try:
        with path.open("rb") as file:
            yield from _numbered(file)
    except IsADirectoryError as error:
        fix = "pass one of the files in it"
        raise InputError(message(str(path), got="a folder", expected="a JSONL file", fix=fix)) from error
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        got = getattr(error, "strerror", None) or error
        raise InputError(message(shown(path), got=got, expected="a JSONL file", fix="correct the path")) from error


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes | Problem]]:
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if number == 1:
            if line[:2] in _UTF16:
                yield number, Problem("a file in UTF-16", "UTF-8", "save the file as UTF-8")
                return
            line = line.removeprefix(_BOM)
        if len(line) > LONGEST:
            yield number, Problem(f"more than {LONGEST >> 20} MiB", "a shorter line", "end each object with a line end")
            return
        yield number, line


def _made(line: bytes, make: Callable[[dict[str, Any]], Made | Problem]) -> Made | Problem:
    try:
        return make(_record(line))
    except _BadLineError as error:
        return error.problem


def _record(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        got = f"byte 0x{line[error.start]:02x} at {error.start + 1}"
        raise _BadLineError(got, "UTF-8", "save the file as UTF-8") from error
    try:
        record = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        got = f"{shown(text.strip(), 40)!r}, where JSON ends at column {error.colno} ({error.msg})"
        if text.strip() in ("[", "{"):
            got = f"{text.strip()!r} alone, as of JSON over several lines"
        raise _BadLineError(got, _OBJECT, _ONE) from error
    except RecursionError as error:
        raise _BadLineError("JSON that is nested too deeply", _OBJECT, _ONE) from error
    except _BadLineError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise _BadLineError(shown(error, 80), _OBJECT, _ONE) from error
    if isinstance(record, dict):
        return record
    raise _BadLineError({list: "a list", type(None): "null"}.get(type(record), type(record).__name__), _OBJECT, _ONE)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members, none of which may be there twice: JSON's readers disagree on which of two is meant."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _BadLineError(f"{shown(twice, 40)!r} twice", "each name once", "delete one of the two")
    return record


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_constant(digits[:40])


def _no_constant(name: str) -> NoReturn:
    raise _BadLineError(name, "JSON, which has no such number", "write null, or leave it out")


def _refuse(path: Path, bad: Iterable[tuple[int, Problem]], count: int) -> None:
    lines = [message(f"{path} line {number}", **problem._asdict()) for number, problem in bad]
    if not lines:
        return
    if len(lines) > 1:
        got = f"{len(lines)} bad lines of {count}"
        lines = [message(str(path), got=got, expected="none", fix="fix what is listed"), *lines]
    if (more := len(lines) - 1 - SHOWN) > 0:
        lines = [*lines[: SHOWN + 1], f"and {more} more"]
    raise FormatError("\n  ".join(lines))
