"""Numbers that come from a caller or a file, as plain Python numbers; loads no library."""

import math
from numbers import Integral, Real
from typing import Any

from share_jax.errors import InputError, message


def whole_number(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Args:
        name: what messages call it.
        value: what was given.
        least: the smallest that is taken.

    Raises:
        InputError: it is no whole number, or below.

    >>> whole_number("rank", 8, 1)
    8
    >>> whole_number("rank", "8", 1)
    Traceback (most recent call last):
    share_jax.errors.InputError: rank: got '8', expected a whole number of at least 1; pass a number
    """
    expected = f"a whole number of at least {least}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(message(name, got=repr(value), expected=expected, fix="pass a number"))
    if value < least:
        raise InputError(message(name, got=value, expected=f"at least {least}", fix="raise it"))
    return int(value)


def finite_number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        InputError: it is none.

    >>> finite_number("alpha", 16)
    16.0
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(message(name, got=repr(value), expected="a finite number", fix="pass a number"))
    return float(value)
