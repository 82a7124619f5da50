"""Numbers that come from a caller or a file, as plain Python numbers; loads no library."""

import math
from numbers import Integral, Real
from typing import Any

from share_jax.errors import InputError, message


def whole_number(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Args:
        name: what messages call it.
        value: what was given; an array without axes is its number.
        least: the smallest that is taken.

    Raises:
        InputError: it is no whole number, or below.

    >>> whole_number("rank", 8, 1)
    8
    >>> whole_number("rank", "8", 1)
    Traceback (most recent call last):
    share_jax.errors.InputError: rank: got '8', expected a whole number of at least 1; correct rank
    """
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
        expected = f"a whole number of at least {least}"
        raise InputError(message(name, got=repr(value), expected=expected, fix=f"correct {name}"))
    return int(number)


def finite_number(name: str, value: Any) -> float:
    """A finite number.

    Args:
        name: what messages call it.
        value: what was given; an array without axes is its number.

    Raises:
        InputError: it is none.

    >>> finite_number("alpha", 16)
    16.0
    """
    if not _is_finite(number := _plain(value)):
        raise InputError(message(name, got=repr(value), expected="a finite number", fix=f"correct {name}"))
    return float(number)


def positive_number(name: str, value: Any) -> float:
    """A finite number above 0.

    Args:
        name: what messages call it.
        value: what was given.

    Raises:
        InputError: it is none.

    >>> positive_number("alpha", 0)
    Traceback (most recent call last):
    share_jax.errors.InputError: alpha: got 0, expected a finite number above 0; correct alpha
    """
    if not _is_finite(number := _plain(value)) or number <= 0:
        raise InputError(message(name, got=repr(value), expected="a finite number above 0", fix=f"correct {name}"))
    return float(number)


def _is_finite(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)


def _plain(value: Any) -> Any:
    """What an array without axes, or a NumPy number, holds."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
