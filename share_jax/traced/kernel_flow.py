"""What leaves a kernel one on its way through a program: casts, transposes, reshapes, single indices, joins.

Every rule takes an operation, its inputs and its place, and returns the outputs, or None where the kernel cannot be
followed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from share_jax.traced.dequantizing import decoded, is_coded
from share_jax.traced.joined import Joined, joined, plain, with_value
from share_jax.traced.kernel_view import KernelView
from share_jax.traced.visitor import HELD, MARK, Place, Visitor

Rule = Callable[[JaxprEqn, list[Any], Place], list[Any] | None]
"""(operation, its inputs, its place) to its outputs."""


def bind(eqn: JaxprEqn, inputs: Sequence[Any], visitor: Visitor) -> list[Any]:
    """The outputs of an operation as it was traced, or their shapes."""
    if visitor.abstract:
        return [var.aval for var in eqn.outvars]
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*inputs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _same(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    outputs = bind(eqn, [plain(value) for value in inputs], place.visitor)
    return [with_value(value, out) for value, out in zip(inputs, outputs, strict=True)]


def decoded_of(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """What the codes of a quantised kernel become; None if the operation is no part of that."""
    view = decoded(eqn, inputs)
    if view is None:
        return None
    for each in inputs:  # a scale may look like a kernel
        if isinstance(each, KernelView) and not is_coded(each):
            place.refuse(each, eqn.primitive.name)
    (value,) = bind(eqn, [plain(each) for each in inputs], place.visitor)
    return [replace(view, value=value)]


def _cast(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if not jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
        return None
    return _same(eqn, inputs, place)


def _transpose(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    (value,) = bind(eqn, [inputs[0].value], place.visitor)
    return [inputs[0].transposed(value, eqn.params["permutation"])]


def _reshape(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if eqn.params["dimensions"] is not None or not isinstance(inputs[0], KernelView):
        return None
    (value,) = bind(eqn, [plain(each) for each in inputs], place.visitor)
    view = inputs[0].reshaped(value)
    return None if view is None else [view]


def _squeeze(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    (value,) = bind(eqn, [inputs[0].value], place.visitor)
    return [inputs[0].without(value, tuple(int(axis) for axis in eqn.params["dimensions"]))]


def _sliced(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """One index of an axis: a layer of those that are stacked along it."""
    view, first, last = inputs[0], eqn.params["start_indices"], eqn.params["limit_indices"]
    for axis, size in enumerate(view.value.shape):
        if last[axis] - first[axis] == size and eqn.params["strides"] is None:
            continue
        view = view.one_of(axis, first[axis]) if last[axis] - first[axis] == 1 else None
        if view is None:
            return None
    (value,) = bind(eqn, [inputs[0].value], place.visitor)
    return [replace(view, value=value)]


def _broadcast(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    view, shape, where = inputs[0], eqn.params["shape"], list(eqn.params["broadcast_dimensions"])
    if not isinstance(view, KernelView) or len(inputs) > 1:
        return None
    if any(size != 1 for axis, size in enumerate(shape) if axis not in where) or [
        shape[axis] for axis in where
    ] != list(view.value.shape):
        return None
    (value,) = bind(eqn, [view.value], place.visitor)
    axes = tuple(view.axes[where.index(axis)] if axis in where else () for axis in range(len(shape)))
    return [replace(view, value=value, axes=axes)]


def _scaled(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """A product with one number, or a quotient by one."""
    kernels = [value for value in inputs if isinstance(value, KernelView)]
    others = [value for value in inputs if not isinstance(value, KernelView)]
    if len(kernels) != 1 or len(inputs) > 2 or any(getattr(other, "size", 1) != 1 for other in others):
        return None
    name = eqn.primitive.name
    if name == "div" and not isinstance(inputs[0], KernelView):
        return None
    (value,) = bind(eqn, [plain(each) for each in inputs], place.visitor)
    if place.visitor.abstract:
        return [replace(kernels[0], value=value, scale=others[0] if others else value)]
    number = jnp.float32(-1) if name == "neg" else jnp.reshape(others[0], ())
    number = 1 / number if name == "div" else number
    scale = number if kernels[0].scale is None else kernels[0].scale * number
    return [replace(kernels[0], value=value, scale=scale)]


def concatenated(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """Kernels that are put side by side, or with other arrays."""
    (value,) = bind(eqn, [plain(each) for each in inputs], place.visitor)
    whole = joined(value, inputs, int(eqn.params["dimension"]))
    return None if whole is None else [whole]


def _stacked(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """A join along an axis of its own, which every part has with a length of 1."""
    if any(isinstance(each, Joined) for each in inputs):
        return None
    axis = int(eqn.params["axis"])
    (value,) = bind(eqn, [plain(each) for each in inputs], place.visitor)

    def part(each: Any) -> Any:
        array = value if place.visitor.abstract else jnp.expand_dims(plain(each), axis)
        return each.widened(array, axis) if isinstance(each, KernelView) else array

    return [joined(value, [part(each) for each in inputs], axis)]


def _unstacked(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """Every index of an axis by itself."""
    view, axis = inputs[0], int(eqn.params["axis"])
    each = [view.one_of(axis, index) for index in range(view.value.shape[axis])]
    if any(one is None for one in each):
        return None
    made = bind(eqn, [view.value], place.visitor)
    return [one.without(array, (axis,)) for one, array in zip(each, made, strict=True) if one is not None]


def each_part(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """A cast or a transpose of joined kernels."""
    if not floating(eqn):
        return None

    def change(part: Any) -> Any:
        rule = FOLLOWED[eqn.primitive.name] if isinstance(part, KernelView) else _plain
        made = rule(eqn, [part], place)
        return part if made is None else made[0]

    (value,) = bind(eqn, [plain(inputs[0])], place.visitor)
    order = eqn.params.get("permutation")
    return [inputs[0].mapped(value, change, None if order is None else order.index(inputs[0].axis))]


def _plain(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    return bind(eqn, inputs, place.visitor)


def _named(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    text = str(eqn.params["name"])
    if text == HELD:
        return [plain(inputs[0])]
    if text.startswith(MARK):
        place.visitor.mark(inputs[0], text[len(MARK) :])
    return _same(eqn, inputs, place)


def floating(eqn: JaxprEqn) -> bool:
    """Whether an operation makes floating numbers."""
    out: Any = eqn.outvars[0].aval
    return bool(jnp.issubdtype(out.dtype, jnp.floating))


FOLLOWED: dict[str, Rule] = {
    "convert_element_type": _cast,
    "copy": _same,
    "copy_p": _same,
    "stop_gradient": _same,
    "reduce_precision": _same,
    "sharding_constraint": _same,
    "optimization_barrier": _same,
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "slice": _sliced,
    "broadcast_in_dim": _broadcast,
    "concatenate": concatenated,
    "stack": _stacked,
    "unstack": _unstacked,
    "mul": _scaled,
    "div": _scaled,
    "neg": _scaled,
    "name": _named,
    "mesh_cast": _same,
}
"""By the name of the operation."""
