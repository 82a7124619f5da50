"""How a program decodes a quantised kernel: operations after which it still is one array of the same elements.

The codes go through casts, a lookup in a table of few values, and products with scales, of which there are fewer than
codes. An update is added where a product reads the decoded kernel; nothing is quantised again.

Source: "QLoRA: Efficient Finetuning of Quantized LLMs", https://arxiv.org/abs/2305.14314, equations 5 and 6.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn, Literal

from share_jax.traced.kernel_view import KernelView

ELEMENTWISE = frozenset({
    "abs", "add", "and", "clamp", "convert_element_type", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mul",
    "ne", "neg", "not", "or", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sub",
    "xor",
})  # fmt: skip
"""Operations of which each element of the output depends on one of the codes."""

SCALING = ("mul", "div")


def is_coded(value: Any) -> bool:
    """Whether a value of the program is a quantised kernel."""
    return isinstance(value, KernelView) and value.stored != "values"


def decoded(eqn: JaxprEqn, inputs: Sequence[Any]) -> KernelView | None:
    """The output of an operation that decodes, still with an input's value; None if it is no such operation.

    Args:
        eqn: the operation.
        inputs: its operands, at least one of them a `KernelView`.
    """
    views = [value for value in inputs if is_coded(value)]
    if not views:
        return None
    if eqn.primitive.name == "gather":
        return _looked_up(eqn, inputs)
    view, shape = views[0], tuple(_aval(eqn.outvars[0]).shape)
    alike = all((other.path, other.axes, other.slices) == (view.path, view.axes, view.slices) for other in views)
    if eqn.primitive.name not in ELEMENTWISE or not alike or shape != tuple(view.value.shape):
        return None
    others = [atom for atom, value in zip(eqn.invars, inputs, strict=True) if not is_coded(value)]
    if any(_size(atom) > 1 and _size(atom) >= np.prod(shape) for atom in others):
        return None
    scaled = eqn.primitive.name in SCALING and any(not isinstance(atom, Literal) for atom in others)
    done = scaled or any(each.stored == "decoded" for each in views)
    return replace(view, stored="decoded" if done else "codes")


def _looked_up(eqn: JaxprEqn, inputs: Sequence[Any]) -> KernelView | None:
    """Codes as places in a table of values."""
    table, view = inputs[:2]
    table_shape = _aval(eqn.invars[0]).shape
    if is_coded(table) or not is_coded(view) or len(table_shape) != 1 or view.axes[-1]:
        return None
    shape, out = tuple(view.value.shape), tuple(_aval(eqn.outvars[0]).shape)
    if out == shape:
        return view
    return replace(view, axes=view.axes[:-1]) if out == shape[:-1] else None


def _aval(variable: Any) -> Any:
    return variable.aval


def _size(atom: Any) -> int:
    return int(np.prod(_aval(atom).shape))
