"""Whether a program may put the examples of a batch into another order before a layer, as a sort by length does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint")
"""Operations whose body takes their inputs one by one."""


def may_reorder(program: ClosedJaxpr, size: int) -> bool:
    """Whether the program sorts, turns, rolls or picks along an axis of this length, itself or in an operation's body.

    Shapes do not tell the examples of a batch from the same examples sorted: a layer between would take the slot of
    another example. The answer errs to yes where indices are no constants; example i picked i-th, as with one token
    chosen of each, keeps its place. A `size` that no other axis has keeps other axes out of it.

    Args:
        program: traced.
        size: of the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> program = jax.make_jaxpr(lambda x: x[jnp.argsort(x[:, 0])])(jnp.ones((5, 2)))
        >>> may_reorder(program, 5), may_reorder(program, 2)
        (True, False)
    """
    return _Body(program.jaxpr, dict(zip(program.jaxpr.constvars, program.consts, strict=True))).reorders(size)


@dataclass
class _Body:
    """A program, or the body of one of its operations, with what is known of its values."""

    jaxpr: Jaxpr
    known: dict[Any, Any]
    made: Mapping[Any, JaxprEqn] = field(init=False)

    def __post_init__(self) -> None:
        self.made = {out: eqn for eqn in self.jaxpr.eqns for out in eqn.outvars}

    def reorders(self, size: int) -> bool:
        return any(
            self._orders(eqn, size) or any(body.reorders(size) for body in self._bodies(eqn)) for eqn in self.jaxpr.eqns
        )

    def constant(self, atom: Any) -> Any:
        """The value of what depends on no input; None of all else."""
        if isinstance(atom, Literal):
            return atom.val
        if atom not in self.known:
            eqn = self.made.get(atom)
            inputs = [None] if eqn is None else [self.constant(each) for each in eqn.invars]
            if eqn is None or any(value is None for value in inputs):
                self.known[atom] = None
            else:
                with jax.ensure_compile_time_eval():
                    found = eqn.primitive.bind(*inputs, **eqn.params)
                self.known |= zip(eqn.outvars, found if eqn.primitive.multiple_results else [found], strict=True)
        return self.known[atom]

    def _orders(self, eqn: JaxprEqn, size: int) -> bool:
        name = "scatter" if eqn.primitive.name.startswith("scatter") else eqn.primitive.name
        if name not in _AXES:
            return False
        return any(shape[axis] == size and not self._counts(column, size) for shape, axis, column in _AXES[name](eqn))

    def _counts(self, column: tuple[Any, int] | None, size: int) -> bool:
        """Whether the indices into an axis are its places, in their order."""
        if column is None:
            return False
        atom, at = column
        eqn = None if isinstance(atom, Literal) else self.made.get(atom)
        last = len(_shape(atom)) - 1
        if eqn is not None and eqn.primitive.name == "concatenate" and eqn.params["dimension"] == last:
            pieces = eqn.invars
            if all(_shape(piece)[-1] == 1 for piece in pieces):
                atom, at = pieces[at], 0
        value = self.constant(atom)
        if value is None:
            return False
        places = np.asarray(value)[..., at]
        for axis in (axis for axis, length in enumerate(places.shape) if length == size):
            if np.array_equal(places, np.broadcast_to(_along(np.arange(size), axis, places.ndim), places.shape)):
                return True
        return False

    def _bodies(self, eqn: JaxprEqn) -> Iterator["_Body"]:
        for value in eqn.params.values():
            for each in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(each, ClosedJaxpr):
                    yield self._body(eqn, each.jaxpr, each.consts)
                elif isinstance(each, Jaxpr):
                    yield self._body(eqn, each, ())

    def _body(self, eqn: JaxprEqn, jaxpr: Jaxpr, consts: Sequence[Any]) -> "_Body":
        known = dict(zip(jaxpr.constvars, consts, strict=False))
        if eqn.primitive.name in CALLS:
            known |= zip(jaxpr.invars, map(self.constant, eqn.invars), strict=True)
        return _Body(jaxpr, known)


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    return values.reshape([-1 if each == axis else 1 for each in range(ndim)])


def _shape(atom: Any) -> tuple:
    return atom.aval.shape


Axes = list[tuple[tuple, int, tuple[Any, int] | None]]
"""Shapes, an axis of each, and where indices choose from it, those indices and which of them."""


def _of_operand(parameter: str) -> Callable[[JaxprEqn], Axes]:
    """Each axis of the operand that a parameter names; the last axis where there is no such parameter."""

    def axes(eqn: JaxprEqn) -> Axes:
        named = eqn.params.get(parameter, -1)
        return [(_shape(eqn.invars[0]), axis, None) for axis in (named if isinstance(named, tuple) else (named,))]

    return axes


def _indexed(parameter: str) -> Callable[[JaxprEqn], Axes]:
    """Each axis of the operand that indices choose from."""

    def axes(eqn: JaxprEqn) -> Axes:
        chosen = getattr(eqn.params["dimension_numbers"], parameter)
        return [(_shape(eqn.invars[0]), axis, (eqn.invars[1], at)) for at, axis in enumerate(chosen)]

    return axes


def _joined(eqn: JaxprEqn) -> Axes:
    """The axis along which parts were joined."""
    return [(_shape(eqn.outvars[0]), eqn.params["dimension"], None)]


def _cut(eqn: JaxprEqn) -> Axes:
    """Each axis that was longer before."""
    before, after = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    return [(after, axis, None) for axis in range(len(after)) if before[axis] != after[axis]]


_AXES: dict[str, Callable[[JaxprEqn], Axes]] = {
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
