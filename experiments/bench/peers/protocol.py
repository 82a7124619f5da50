"""What a peer's process can be asked to make, as types."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Runnable(Protocol):
    """What a kind makes."""

    facts: dict[str, Any]
    run: Callable[..., dict[str, Any]]
    """Does it once; the answer holds the "seconds" that it took."""


Kinds = Mapping[str, Callable[..., Runnable]]
