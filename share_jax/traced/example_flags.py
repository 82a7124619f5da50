"""A model's arguments: those of an example call that hold no arrays, kept as its defaults, and that for its keys."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from share_jax.model_inputs import holds_arrays
from share_jax.typing import PRNGKey

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


def with_key(
    callee: Callee,
    name: str,
    key: PRNGKey | None,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    made: Callable[[inspect.Parameter, Any, PRNGKey], Any] = lambda parameter, own, key: key,
    optional: bool = True,
) -> dict[str, Any]:
    """The named arguments of a call with that for keys: the step's where there is one, else the call's own.

    Args:
        callee: what is called; without this argument, or with it given by place, the call stays as it is.
        name: of the argument.
        key: of the step; None predicts, and an argument without a default that the call does not give is None.
        args: the call's arguments by place.
        kwargs: those by name.
        made: (the parameter, the call's own value, key) to what the argument gets.
        optional: whether an argument with a default, which the call does not give, gets the key, too.

    >>> with_key(lambda params, x, *, rngs: x, "rngs", None, (3.0,), {})
    {'rngs': None}
    """
    parameter = _parameters(callee).get(name)
    if parameter is None or name in _places(callee)[: len(args)]:
        return dict(kwargs)
    own, needed = kwargs.get(name), parameter.default is parameter.empty
    if key is not None and (optional or needed or own is not None):
        return {**kwargs, name: made(parameter, own, key)}
    return {**kwargs, name: own} if needed else dict(kwargs)


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
