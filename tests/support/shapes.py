"""What tests check of annotations: the shapes and dtypes of arrays, and nothing that a user's mistake would meet."""

import types
from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable) -> Callable:
    """`function` with those annotations alone enforced that name an array's dimensions.

    The library refuses wrong arguments of other types in one line of its own, which tests hold it to: a type checker in
    front of it would answer first.
    """
    arrays = {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if names_dimensions(hint)}
    if not arrays or not isinstance(function, types.FunctionType):
        return function
    code, scope, defaults, closure = (getattr(function, f"__{n}__") for n in ("code", "globals", "defaults", "closure"))
    copy = types.FunctionType(code, scope, function.__name__, defaults, closure)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = (
        function.__kwdefaults__,
        function.__qualname__,
        function.__module__,
    )
    copy.__doc__, copy.__annotations__ = function.__doc__, arrays
    return beartype(copy)


def names_dimensions(hint: Any) -> bool:
    """Whether an annotation is one of jaxtyping's, by itself or within another."""
    return "jaxtyping" in f"{getattr(hint, '__module__', '')} {hint!r}"
