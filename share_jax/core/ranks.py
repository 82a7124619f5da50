"""Checks of the static numbers that every low-rank parameterisation takes."""

import math

from share_jax.errors import InputError, line


def check_rank(rank: int, alpha: float, init_std: float) -> None:
    """Refuses a rank below 1 and an alpha or init_std that is not a positive finite number.

    Raises:
      InputError: naming the number that is wrong.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InputError(line("rank", got=rank, expected="a whole number of at least 1", mend="pass rank=4"))
    for what, value in (("alpha", alpha), ("init_std", init_std)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(
                line(what, got=value, expected="a positive finite number", mend=f"leave {what} at its default")
            )
