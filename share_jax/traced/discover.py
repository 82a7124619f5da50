"""Finds out, by one abstract evaluation, how a program uses each of its kernels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from share_jax.traced.interpreter import plain, run
from share_jax.traced.kernel_view import KernelView, view_of
from share_jax.traced.operations import Operation, Use, sides_of
from share_jax.typing import Array


@dataclass
class Reading:
    """What a program does with one kernel.

    Attributes:
        uses: by operations of linear layers.
        obstacle: why activation space cannot follow it; None if it can.
    """

    uses: list[Use] = field(default_factory=list)
    obstacle: str | None = None

    def chosen(self) -> Use | None:
        """The use that says which axes are inputs, a lookup before all others; None if there is none."""
        ordered = sorted(self.uses, key=lambda use: use.kind != "lookup")
        return ordered[0] if ordered else None

    def conflict(self, shape: tuple[int, ...]) -> str | None:
        """Why no one adapter serves all uses; None if one does."""
        chosen = self.chosen()
        if chosen is None:
            return None
        for use in self.uses:
            if use.stacked != chosen.stacked or sides_of(use, shape, chosen.inputs, chosen.outputs) is None:
                return "a kernel that two operations use along different axes"
        return None


@dataclass
class Recorder:
    """Notes every use; the program runs as it is."""

    found: dict[str, Reading]

    def use(self, view: KernelView, operation: Operation) -> Array:
        """Notes how, and gives the plain output."""
        uses = self.found.setdefault(view.path, Reading()).uses
        if operation.use not in uses:
            uses.append(operation.use)
        return operation.plain()

    def refuse(self, view: KernelView, reason: str) -> None:
        """Notes the first reason."""
        reading = self.found.setdefault(view.path, Reading())
        reading.obstacle = reading.obstacle or reason


def readings(function: Callable[[dict[str, Array]], Any], kernels: Mapping[str, Any]) -> dict[str, Reading]:
    """How a function uses kernels, by path; nothing for those that its output does not depend on.

    Args:
        function: (kernels by path) to any tree of arrays. Called within an abstract evaluation.
        kernels: arrays or shapes, by path.
    """
    recorder = Recorder({})
    closed = jax.make_jaxpr(function)(dict(kernels))

    def evaluate(kernels: dict[str, Array]) -> list[Array]:
        ordered = jax.tree.leaves(kernels)
        views = [view_of(path, leaf, {}, {}) for path, leaf in zip(sorted(kernels), ordered, strict=True)]
        out = run(closed.jaxpr, closed.consts, views, recorder)
        for value in out:
            if isinstance(value, KernelView):
                recorder.refuse(value, "a kernel that the model returns")
        return [plain(value) for value in out]

    jax.eval_shape(evaluate, {path: jax.ShapeDtypeStruct(jnp.shape(k), k.dtype) for path, k in kernels.items()})
    return recorder.found
