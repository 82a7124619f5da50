"""Numbers that come from a caller or a file, as plain Python numbers; loads no library."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from share_jax.errors import InputError, message


def whole_number(name: str, value: Any, least: int, *, expected: str | None = None) -> int:
    """A whole number of at least `least`.

    Args:
        name: what messages call it.
        value: what was given; an array without axes is its number.
        least: the smallest that is taken.
        expected: what messages say of the range, where there is more to say.

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
        told = expected or f"a whole number of at least {least}"
        raise InputError(message(name, got=repr(value), expected=told, fix=f"correct {name}"))
    return int(number)


def _any(number: float) -> bool:
    return True


def finite_number(
    name: str, value: Any, *, expected: str = "a finite number", fits: Callable[[float], bool] = _any
) -> float:
    """A finite number.

    Args:
        name: what messages call it.
        value: what was given; an array without axes is its number.
        expected: what messages say of the range.
        fits: whether a finite number is in it.

    Raises:
        InputError: it is no finite number, or out of range.

    >>> finite_number("alpha", 16)
    16.0
    """
    number = _plain(value)
    try:
        found = float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    except OverflowError:  # a whole number that no float can hold
        found = math.nan
    if not (math.isfinite(found) and fits(found)):
        raise InputError(message(name, got=repr(value), expected=expected, fix=f"correct {name}"))
    return found


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
    return finite_number(name, value, expected="a finite number above 0", fits=lambda number: number > 0)


def _plain(value: Any) -> Any:
    """What an array without axes holds, or a NumPy number; an array that has no value yet, as under jit, stays."""
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except TypeError:  # JAX's error for a traced array is one
        return value
