"""The errors a user can meet. Each message is one line: what, got, expected, how to fix."""

import textwrap
from collections.abc import Mapping


class ShareError(Exception):
    """Base of every error that share_jax raises for a user's input."""


class InputError(ShareError, ValueError):
    """An argument, array or option is not what the call takes."""


class TargetError(ShareError, ValueError):
    """A target pattern, or the model under it, does not fit."""


class TaskError(ShareError, LookupError):
    """A task name or task id is unknown, taken, or out of range."""


class FormatError(ShareError, ValueError):
    """A file or folder is not what its format says, or is damaged."""


class LimitError(ShareError, RuntimeError):
    """The step would pass a limit that the user set; nothing was changed."""


class DivergedError(ShareError, ArithmeticError):
    """A loss or a trained number is no longer finite; what was kept before it is as it was."""


class SaveError(ShareError, OSError):
    """Nothing more could be written, as on a full disk; what was saved before is as it was."""


class BusyError(ShareError, RuntimeError):
    """Another process works in this folder."""


def message(what: str, *, got: object, expected: object, fix: str) -> str:
    """Formats the one line that every error carries.

    >>> message("rank", got=0, expected="a whole number of at least 1", fix="pass rank=4")
    'rank: got 0, expected a whole number of at least 1; pass rank=4'
    """
    return f"{what}: got {got}, expected {expected}; {fix}"


def first_line(error: Exception, nothing: str = "") -> str:
    r"""What an error of another library says, as far as one line takes it; its class where it says nothing.

    >>> first_line(ValueError("bad shapes\nin 30 lines")), first_line(KeyError()), first_line(KeyError(), "no reason")
    ('bad shapes', 'KeyError', 'no reason')
    """
    text = str(error).strip() or nothing or type(error).__name__
    return textwrap.shorten(text.splitlines()[0], 300, placeholder=" ...")


def entries(value: object, most: int | None = None) -> str:
    """What stands where a dict with certain keys was expected: its own keys, or its type if it is none.

    >>> entries({"b": 1, "a": 2}), entries([1])
    ("a dict of ['a', 'b']", 'list')
    """
    return f"a dict of {sorted(map(str, value))[:most]}" if isinstance(value, Mapping) else type(value).__name__
