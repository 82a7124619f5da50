"""Whether a program may put the examples of a batch into another order before a layer, as a sort by length does."""

from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

_ALONG = {"sort": "dimension", "rev": "dimensions", "top_k": "axis", "approx_top_k": "reduction_dimension"}
"""Operations that order or turn an axis, and the parameter that names it; the last axis where there is none."""


def may_reorder(jaxpr: Jaxpr, size: int) -> bool:
    """Whether the program sorts or turns an axis of this length, itself or in the body of an operation.

    Shapes do not tell the examples of a batch from the same examples sorted: a layer between would take the slot of
    another example. A `size` that no other axis has makes the answer exact.

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
    if name not in _ALONG:
        return False
    operand: Any = eqn.invars[0].aval
    named = eqn.params.get(_ALONG[name], -1)
    axes = named if isinstance(named, tuple) else (named,)
    return any(operand.shape[axis] == size for axis in axes)


def _bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, Jaxpr):
                yield each
