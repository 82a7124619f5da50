"""The names of the slots in which a new task's training may start, for command lines that load no JAX."""

from typing import Literal, get_args

from share_jax.errors import InputError, message

StartFrom = Literal["zero", "last"]
"""Where a task's adapter starts: "zero", the frozen model; "last", a copy of the last learnt task's."""


def check_start(start_from: str) -> None:
    """Refuses another start.

    Raises:
        InputError: it is neither "zero" nor "last".
    """
    if start_from not in get_args(StartFrom):
        expected = " or ".join(get_args(StartFrom))
        raise InputError(message("start_from", got=repr(start_from), expected=expected, fix="pass one of them"))
