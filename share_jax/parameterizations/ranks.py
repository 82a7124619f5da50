"""Checks of the static numbers that the low-rank parameterisations take."""

import math

import numpy as np

from share_jax.errors import InputError, message


def check_columns(what: str, value: int) -> None:
    """Refuses a rank, or another number of columns, that is not a whole number of at least 1.

    Raises:
        InputError: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(message(what, got=value, expected="a whole number of at least 1", fix=f"pass {what}=4"))


def check_positive(what: str, value: float) -> None:
    """Refuses a number that is not finite and above 0.

    Raises:
        InputError: naming it.
    """
    if not (math.isfinite(value) and value > 0):
        fix = f"leave {what} at its default"
        raise InputError(message(what, got=value, expected="a positive finite number", fix=fix))
