"""What of an example call holds no arrays, such as `train=False`: kept as the model's own defaults."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from share_jax.model_inputs import holds_arrays

Callee = Callable[..., Any]
"""A method of a module, or a function of parameters: what it takes first is no argument of a call."""


def _parameters(callee: Callee) -> Mapping[str, inspect.Parameter]:
    """Parameters without the first; none where they cannot be read."""
    try:
        found = dict(inspect.signature(callee).parameters)
    except (TypeError, ValueError):
        return {}
    found.pop(next(iter(found), ""), None)
    return found


def _places(callee: Callee) -> list[str]:
    """Names of the arguments that may be given by place, in their order."""
    return [name for name, each in _parameters(callee).items() if each.kind is each.POSITIONAL_OR_KEYWORD]


def example_flags(
    callee: Callee, args: tuple, kwargs: Mapping[str, Any], *, others: Collection[str] = ()
) -> dict[str, Any]:
    """The arguments of a call that hold no arrays, by name; those of `*args` have none, and are left out.

    Args:
        callee: what is called.
        args: the call's arguments by place.
        kwargs: those by name.
        others: names that are none of the callee's, and are no flags.

    >>> example_flags(lambda params, x, train: x, (3.0, True), {})
    {'x': 3.0, 'train': True}
    """
    by_place = zip(_places(callee), args, strict=False)
    given = {**dict(by_place), **{name: value for name, value in kwargs.items() if name not in others}}
    return {name: value for name, value in given.items() if not holds_arrays(value)}


def with_flags(
    callee: Callee, flags: Mapping[str, Any], args: tuple, kwargs: Mapping[str, Any], *, always: Collection[str] = ()
) -> dict[str, Any]:
    """The named arguments of a call, with the flags that it does not give itself.

    Args:
        callee: what is called; another one than in the example gets the flags alone that it takes.
        flags: from `example_flags`.
        args: the call's arguments by place; a flag that one of them gives is left out.
        kwargs: those by name.
        always: flags that go along although the callee does not take them.

    >>> with_flags(lambda params, x, train: x, {"train": False}, (3.0,), {})
    {'train': False}
    """
    if not flags:
        return dict(kwargs)
    found = _parameters(callee)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in found.values())
    by_place = _places(callee)[: len(args)]
    taken = {
        name: value
        for name, value in flags.items()
        if name not in by_place and (name in always or name in found or takes_any)
    }
    return {**taken, **kwargs}
