"""How many programs XLA compiles while something is done."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax


@cache
def _seen() -> list[str]:
    """All compilations from now on; JAX is told once, since a listener cannot be taken back."""
    events: list[str] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    return events


def compilations(call: Callable[[], Any]) -> int:
    """The number of programs that are compiled during the call, its results awaited."""
    seen = _seen()
    before = len(seen)
    jax.block_until_ready(call())
    return len(seen) - before
