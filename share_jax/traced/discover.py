"""Finds out, without computing anything, how a traced program uses each of its kernels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr

from share_jax.layers.stored_kernel import parts
from share_jax.traced.interpreter import run
from share_jax.traced.joined import kernels_in
from share_jax.traced.kernel_view import KernelView, view_of
from share_jax.traced.operations import Operation, Use, sides_of
from share_jax.traced.visitor import CHANGED, HELD, MARK, RETURNED
from share_jax.typing import Array


@dataclass
class Reading:
    """What a program does with one kernel.

    Attributes:
        uses: by operations of all kinds, and marks.
        obstacle: why activation space cannot follow it; None if it can.
    """

    uses: list[Use] = field(default_factory=list)
    obstacle: str | None = None

    @property
    def layers(self) -> list[Use]:
        """The uses by operations of linear layers, lookups before all others."""
        own = [use for use in self.uses if use.kind not in ("mark", "other")]
        return sorted(own, key=lambda use: use.kind != "lookup")

    def chosen(self) -> Use | None:
        """The use that says which axes are inputs; None if there is none."""
        return next((use for use in self.layers if not use.custom and use.inputs and use.outputs), None)

    def conflict(self, shape: tuple[int, ...]) -> str | None:
        """Why no one adapter serves all uses; None if one does."""
        chosen = self.chosen()
        for use in self.layers:
            if not use.inputs or not use.outputs:
                return "a product with a vector" if use.kind == "product" else "a lookup of single numbers"
            if len(use.stacked) > 1:
                return "a product with layers along several of its axes"
            if (
                chosen is None
                or use.stacked != chosen.stacked
                or (sides_of(use, shape, chosen.inputs, chosen.outputs) is None)
            ):
                return "a kernel that two operations use along different axes"
        return None


@dataclass(frozen=True)
class Recorder:
    """Notes every use.

    Attributes:
        found: by path; filled.
        inside: the function with derivatives of its own that the program lies in; empty if it lies in none.
    """

    found: dict[str, Reading]
    inside: str = ""
    abstract: bool = True

    def use(self, view: KernelView, operation: Operation) -> None:
        """Notes how; of a scaled kernel that it is one."""
        use = operation.use if view.scale is None else replace(operation.use, note="mul")
        reading = self._note(view, use)
        if self.inside:
            reading.obstacle = reading.obstacle or f"a kernel that '{self.inside}' reads"

    def refuse(self, view: KernelView, name: str, reason: str) -> None:
        """Notes the first reason."""
        reading = self._note(view, Use("other", slices=view.slices, note=name))
        reading.obstacle = reading.obstacle or reason

    def mark(self, view: KernelView, text: str) -> None:
        """Notes the axes that transforms around the module take: all that stand apart from its flattened kernel."""
        last = len(view.axes) - 1
        hidden, own = (tuple(piece.axis for piece in view.pieces(axes)) for axes in (range(last), [last]))
        changed = view.scale is not None or list(own) != sorted(own)
        self._note(view, Use("mark", slices=view.slices, batch=hidden, note=f"{text}{CHANGED}" if changed else text))

    def custom(self, name: str) -> "Recorder":
        """Uses there are noted, too."""
        return replace(self, inside=self.inside or name)

    def _note(self, view: KernelView, use: Use) -> Reading:
        reading = self.found.setdefault(view.path, Reading())
        use = replace(use, custom=self.inside)
        if use not in reading.uses:
            reading.uses.append(use)
        return reading


def marked(kernel: Array, text: str) -> None:
    """Leaves a mark in the program that is being traced: here this array is a kernel. It costs nothing when it runs.

    The array is flattened, so that an axis that `jax.vmap` hides from the one who marks stands apart in the program.
    """
    checkpoint_name(jnp.reshape(kernel, (-1,)), f"{MARK}{text}")


def held(kernel: Array) -> Array:
    """The array as one that is not followed any further."""
    return checkpoint_name(kernel, HELD)


def program_of(
    run: Callable[..., Any], kernels: Mapping[str, Any], *more: Any
) -> tuple[ClosedJaxpr, Callable[[list[Any]], Any]]:
    """The program of a function of kernels, and what makes the function's result of the program's outputs.

    Args:
        run: called with the kernels by path and with `more`; closes over all else. What of its result is no array, as
            text or a flag, is kept as it is.
        kernels: arrays, or their shapes and dtypes: in the order of their paths the program's first inputs.
        *more: trees of the same.

    Example:
        >>> def run(kernels, x):
        ...     return {"y": x @ kernels["w"]}
        >>> program, result = program_of(run, {"w": jnp.ones((6, 4))}, jnp.ones((2, 6)))
        >>> [equation.primitive.name for equation in program.eqns]
        ['dot_general']
        >>> result(["the product"])
        {'y': 'the product'}
    """
    kept: dict[str, Any] = {}

    def arrays(kernels: dict[str, Any], *more: Any) -> list[Any]:
        leaves, kept["structure"] = jax.tree.flatten(run(kernels, *more))
        kept["whole"] = [None if _is_array(leaf) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if _is_array(leaf)]

    closed = jax.make_jaxpr(arrays)(dict(kernels), *more)

    def result(outputs: list[Any]) -> Any:
        rest = iter(outputs)
        return jax.tree.unflatten(kept["structure"], [next(rest) if x is None else x for x in kept["whole"]])

    return closed, result


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def readings(function: Callable[..., Any], kernels: Mapping[str, Any], *more: Any) -> dict[str, Reading]:
    """How a function uses kernels, by path; nothing for those that its output does not depend on.

    Args:
        function: (kernels by path, *more) to any tree. It is traced.
        kernels: arrays or shapes, by path; of a quantised one the tree that stores it.
        *more: trees of the same.
    """
    recorder, stored = Recorder({}), {path: parts(leaf) for path, leaf in kernels.items()}

    def of_codes(codes: dict[str, Any], others: dict[str, Any], *more: Any) -> Any:
        return function({path: stored[path].joined(codes[path], others[path]) for path in stored}, *more)

    codes = {path: own.codes for path, own in stored.items()}
    closed, _ = program_of(of_codes, codes, {path: own.others for path, own in stored.items()}, *more)
    inputs: list[Any] = [var.aval for var in closed.jaxpr.invars]
    inputs[: len(kernels)] = [view_of(path, codes[path], {}, {}) for path in sorted(kernels)]
    outputs = run(closed.jaxpr, closed.consts, inputs, recorder)
    for view in (view for value in outputs for view in kernels_in(value)):
        recorder.refuse(view, RETURNED, "a kernel that the model returns")
    return recorder.found
