"""Runs a traced program again, operation by operation, and follows kernels through it to the operations that use them.

A kernel is followed through casts, transposes, reshapes, dropped axes of length 1, factors, and into the bodies of
`jit`, `checkpoint`, `scan`, `while_loop` and `cond`. What reads it at the end is a `Visitor`'s business. All other
operations run as they were traced.

Source: "Writing custom interpreters in JAX", https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from share_jax.traced.kernel_view import KernelView
from share_jax.traced.lookups import convolution_of, lookup_of
from share_jax.traced.operations import Operation
from share_jax.traced.products import product_of


class Visitor(Protocol):
    """What is done with the kernels that a program uses."""

    def use(self, view: KernelView, operation: Operation) -> Any:
        """The output of an operation of a linear layer."""
        ...

    def refuse(self, view: KernelView, reason: str) -> None:
        """Another operation reads the kernel; it runs on the kernel as it is if this returns."""
        ...


def run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], visitor: Visitor) -> list[Any]:
    """The outputs of a program; a kernel that it returns is still a `KernelView`.

    Args:
        jaxpr: the program.
        consts: its constants.
        args: its arguments, `KernelView` for the kernels that are followed.
        visitor: is told of the kernels' uses.
    """
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in _needed(jaxpr):
        inputs = [read(atom) for atom in eqn.invars]
        if any(isinstance(value, KernelView) for value in inputs):
            outputs = _followed(eqn, inputs, visitor)
        else:
            outputs = _bind(eqn, inputs)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def plain(value: Any) -> Any:
    """The array that the program has."""
    return value.value if isinstance(value, KernelView) else value


def _needed(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The operations that outputs depend on, or that have effects: others may read kernels for nothing."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(var in wanted for var in eqn.outvars):
            kept.append(eqn)
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
    return kept[::-1]


def _bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*inputs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _followed(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    rule = _RULES.get(eqn.primitive.name)
    with eqn.ctx.manager:
        outputs = None if rule is None else rule(eqn, inputs, visitor)
    if outputs is not None:
        return outputs
    for value in inputs:
        if isinstance(value, KernelView):
            visitor.refuse(value, f"a kernel that '{eqn.primitive.name}' reads")
    return _bind(eqn, [plain(value) for value in inputs])


# What leaves a kernel one: the rules return None where it can not be followed.


def _same(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    outputs = _bind(eqn, [plain(value) for value in inputs])
    views = [
        replace(value, value=out) if isinstance(value, KernelView) else out
        for value, out in zip(inputs, outputs, strict=True)
    ]
    return views


def _cast(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    if not jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
        return None
    return _same(eqn, inputs, visitor)


def _transpose(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    (value,) = _bind(eqn, [inputs[0].value])
    return [inputs[0].transposed(value, eqn.params["permutation"])]


def _reshape(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    if eqn.params["dimensions"] is not None or not isinstance(inputs[0], KernelView):
        return None
    (value,) = _bind(eqn, [plain(each) for each in inputs])
    view = inputs[0].reshaped(value)
    return None if view is None else [view]


def _squeeze(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    (value,) = _bind(eqn, [inputs[0].value])
    return [inputs[0].without(value, tuple(int(axis) for axis in eqn.params["dimensions"]))]


def _broadcast(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    view, shape, where = inputs[0], eqn.params["shape"], list(eqn.params["broadcast_dimensions"])
    if not isinstance(view, KernelView) or len(inputs) > 1:
        return None
    if any(size != 1 for axis, size in enumerate(shape) if axis not in where) or [
        shape[axis] for axis in where
    ] != list(view.value.shape):
        return None
    (value,) = _bind(eqn, [view.value])
    axes = tuple(view.axes[where.index(axis)] if axis in where else () for axis in range(len(shape)))
    return [replace(view, value=value, axes=axes)]


def _scaled(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    """A product with one number, or a quotient by one."""
    kernels = [value for value in inputs if isinstance(value, KernelView)]
    others = [value for value in inputs if not isinstance(value, KernelView)]
    if len(kernels) != 1 or len(inputs) > 2 or any(jnp.size(other) != 1 for other in others):
        return None
    name = eqn.primitive.name
    if name == "div" and not isinstance(inputs[0], KernelView):
        return None
    (value,) = _bind(eqn, [plain(each) for each in inputs])
    number = jnp.float32(-1) if name == "neg" else jnp.reshape(others[0], ())
    number = 1 / number if name == "div" else number
    scale = number if kernels[0].scale is None else kernels[0].scale * number
    return [replace(kernels[0], value=value, scale=scale)]


# What uses a kernel.


def _product(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    kernels = [isinstance(value, KernelView) for value in inputs]
    if all(kernels):
        return None
    view, other = (inputs[0], inputs[1]) if kernels[0] else (inputs[1], inputs[0])
    return _visited(visitor, view, product_of(view, other, kernels[0], eqn.params))


def _lookup(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    if not isinstance(inputs[0], KernelView):
        return None
    return _visited(visitor, inputs[0], lookup_of(inputs[0], inputs[1], eqn.params))


def _convolution(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    if isinstance(inputs[0], KernelView):
        return None
    return _visited(visitor, inputs[1], convolution_of(inputs[1], inputs[0], eqn.params))


def _visited(visitor: Visitor, view: KernelView, operation: Operation | str) -> list[Any] | None:
    if isinstance(operation, str):
        visitor.refuse(view, operation)
        return None
    return [visitor.use(view, operation)]


# What has a body of its own.


def _inline(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    closed: ClosedJaxpr = eqn.params["jaxpr"]
    return run(closed.jaxpr, closed.consts, inputs, visitor)


def _checkpoint(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    def body(inputs: list[Any]) -> list[Any]:
        return run(eqn.params["jaxpr"], (), inputs, visitor)

    return jax.checkpoint(body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])(inputs)


def _cond(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any]:
    def branch(closed: ClosedJaxpr, operands: list[Any]) -> list[Any]:
        return [plain(value) for value in run(closed.jaxpr, closed.consts, operands, visitor)]

    branches = [partial(branch, closed) for closed in eqn.params["branches"]]
    return jax.lax.switch(inputs[0], branches, inputs[1:])


def _while(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    of_cond, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    start = of_cond + of_body
    if any(isinstance(value, KernelView) for value in inputs[start:]):
        return None
    cond, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]

    def going(carry: list[Any]) -> Any:
        return run(cond.jaxpr, cond.consts, [*inputs[:of_cond], *carry], visitor)[0]

    def step(carry: list[Any]) -> list[Any]:
        return [plain(out) for out in run(body.jaxpr, body.consts, [*inputs[of_cond:start], *carry], visitor)]

    return jax.lax.while_loop(going, step, inputs[start:])


class _Scan(NamedTuple):
    """A scan's inputs as they are passed on: a kernel that it carries unchanged is a constant."""

    constants: dict[int, Any]
    carried: dict[int, Any]
    layers: dict[int, Any]


def _scan(eqn: JaxprEqn, inputs: list[Any], visitor: Visitor) -> list[Any] | None:
    params, closed = eqn.params, eqn.params["jaxpr"]
    first, end = params["num_consts"], params["num_consts"] + params["num_carry"]
    split = _Scan(dict(enumerate(inputs[:first])), {}, {})
    for index, value in enumerate(inputs[first:], first):
        if index >= end:
            if isinstance(value, KernelView) and not _sliced_whole(value):
                return None
            split.layers[index] = value
        elif not isinstance(value, KernelView):
            split.carried[index] = value
        elif closed.jaxpr.outvars[index - first] is closed.jaxpr.invars[index]:
            split.constants[index] = value
        else:
            return None

    def body(carry: dict[int, Any], layers: dict[int, Any]) -> tuple[dict[int, Any], list[Any]]:
        own = {i: value.layer() if isinstance(value, KernelView) else value for i, value in layers.items()}
        known = {**split.constants, **carry, **own}
        out = run(closed.jaxpr, closed.consts, [known[i] for i in range(len(inputs))], visitor)
        after = {i: plain(out[i - first]) for i in carry}
        return after, [y.layers() if isinstance(y, KernelView) else y for y in out[params["num_carry"] :]]

    options: dict[str, Any] = {name: params[name] for name in ("length", "reverse", "unroll")}
    after, ys = jax.lax.scan(body, split.carried, split.layers, **options)
    known = {**split.constants, **after}
    return [*(known[i] for i in range(first, end)), *ys]


def _sliced_whole(view: KernelView) -> bool:
    """Whether the view's first axis is one whole axis of its kernel, and the only one with layers."""
    own = view.axes[0]
    return len(own) == 1 and own[0].size == view.shape[own[0].axis] and view.stacked is None and view.scale is None


_RULES: dict[str, Callable[[JaxprEqn, list[Any], Visitor], list[Any] | None]] = {
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
    "broadcast_in_dim": _broadcast,
    "mul": _scaled,
    "div": _scaled,
    "neg": _scaled,
    "dot_general": _product,
    "gather": _lookup,
    "conv_general_dilated": _convolution,
    "jit": _inline,
    "pjit": _inline,
    "closed_call": _inline,
    "remat2": _checkpoint,
    "checkpoint": _checkpoint,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
