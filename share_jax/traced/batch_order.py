"""Whether a program may put the examples of a batch into another order before a layer, as a sort by length does."""

from collections.abc import Callable, Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def may_reorder(jaxpr: Jaxpr, size: int) -> bool:
    """Whether the program sorts, turns, rolls or picks along an axis of this length, itself or in an operation's body.

    Shapes do not tell the examples of a batch from the same examples sorted: a layer between would take the slot of
    another example. The answer errs to yes, as for a choice of one token per example. A `size` that no other axis has
    keeps other axes out of it.

    Args:
        jaxpr: the program.
        size: of the batch.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> program = jax.make_jaxpr(lambda x: x[jnp.argsort(x[:, 0])])(jnp.ones((5, 2)))
        >>> may_reorder(program.jaxpr, 5), may_reorder(program.jaxpr, 2)
        (True, False)
    """
    return any(_orders(eqn, size) or any(may_reorder(body, size) for body in _bodies(eqn)) for eqn in jaxpr.eqns)


def _orders(eqn: JaxprEqn, size: int) -> bool:
    name = eqn.primitive.name
    axes = _AXES.get("scatter" if name.startswith("scatter") else name)
    return axes is not None and any(shape[axis] == size for shape, axis in axes(eqn))


def _of_operand(parameter: str) -> Callable[[JaxprEqn], list[tuple[tuple, int]]]:
    """The operand's shape with each axis that a parameter names; the last axis where there is no such parameter."""

    def axes(eqn: JaxprEqn) -> list[tuple[tuple, int]]:
        named = eqn.params.get(parameter, -1)
        return [(_shape(eqn.invars[0]), axis) for axis in (named if isinstance(named, tuple) else (named,))]

    return axes


def _indexed(parameter: str) -> Callable[[JaxprEqn], list[tuple[tuple, int]]]:
    """The operand's shape with each axis that indices choose from."""

    def axes(eqn: JaxprEqn) -> list[tuple[tuple, int]]:
        return [(_shape(eqn.invars[0]), axis) for axis in getattr(eqn.params["dimension_numbers"], parameter)]

    return axes


def _joined(eqn: JaxprEqn) -> list[tuple[tuple, int]]:
    """The result's shape with the axis along which parts were joined."""
    return [(_shape(eqn.outvars[0]), eqn.params["dimension"])]


def _cut(eqn: JaxprEqn) -> list[tuple[tuple, int]]:
    """The result's shape with each axis that was longer before."""
    before, after = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    return [(after, axis) for axis in range(len(after)) if before[axis] != after[axis]]


_AXES: dict[str, Callable[[JaxprEqn], list[tuple[tuple, int]]]] = {
    "sort": _of_operand("dimension"),
    "rev": _of_operand("dimensions"),
    "top_k": _of_operand("axis"),
    "approx_top_k": _of_operand("reduction_dimension"),
    "gather": _indexed("start_index_map"),
    "scatter": _indexed("scatter_dims_to_operand_dims"),
    "concatenate": _joined,
    "slice": _cut,
    "dynamic_slice": _cut,
}
"""Operations after which an axis may have another order, and the axes of which that is true."""


def _shape(value: Any) -> tuple:
    return value.aval.shape


def _bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, Jaxpr):
                yield each
