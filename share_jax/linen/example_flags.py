"""What of an example call holds no arrays, such as `train=False`: kept as the model's own defaults."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from share_jax.model_inputs import holds_arrays

OF_APPLY = ("mutable", "capture_intermediates")
"""Arguments of `Module.apply` itself that choose what comes back."""


def _parameters(method: Any) -> Mapping[str, inspect.Parameter]:
    """Parameters of a method without the module itself; none where they cannot be read."""
    try:
        found = dict(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return {}
    found.pop(next(iter(found), ""), None)
    return found


def _places(method: Any) -> list[str]:
    """Names of the arguments that may be given by place, in their order."""
    return [name for name, each in _parameters(method).items() if each.kind is each.POSITIONAL_OR_KEYWORD]


def example_flags(model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that hold no arrays, by name; those of `*args` have none, and are left out."""
    by_place = zip(_places(type(model).__call__), args, strict=False)
    given = {**dict(by_place), **{name: value for name, value in kwargs.items() if name not in ("rngs", "method")}}
    return {name: value for name, value in given.items() if not holds_arrays(value)}


def with_flags(model: nn.Module, flags: Mapping[str, Any], args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The named arguments of a call, with the flags that it does not give itself.

    Args:
        model: the Linen model.
        flags: from `example_flags`.
        args: the call's arguments by place; a flag that one of them gives is left out.
        kwargs: those by name. Another `method` gets the flags alone that it takes.
    """
    if not flags:
        return dict(kwargs)
    method = kwargs.get("method") or type(model).__call__
    method = getattr(type(model), method) if isinstance(method, str) else method
    found = _parameters(method)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in found.values())
    by_place = _places(method)[: len(args)]
    taken = {
        name: value
        for name, value in flags.items()
        if name not in by_place and (name in OF_APPLY or name in found or takes_any)
    }
    return {**taken, **kwargs}
