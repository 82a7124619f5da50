"""Runs a traced program again, operation by operation, and follows kernels through it to the operations that use them.

A kernel is followed through casts, transposes, reshapes, dropped axes of length 1, factors, single indices, and into
the bodies of `jit`, `checkpoint`, `scan`, `while_loop` and `cond`. What reads it at the end is a `Visitor`'s business.
All other operations run as they were traced.

Source: "Writing custom interpreters in JAX", https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from share_jax.traced.decoding import decoded, is_coded
from share_jax.traced.kernel_view import KernelView
from share_jax.traced.lookups import convolution_of, lookup_of
from share_jax.traced.operations import Operation
from share_jax.traced.products import product_of
from share_jax.traced.visitor import MARK, Place, Visitor, plain


def run(
    jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], visitor: Visitor, live: Sequence[bool] | None = None
) -> list[Any]:
    """The outputs of a program; a kernel that it returns is still a `KernelView`.

    Args:
        jaxpr: the program.
        consts: its constants.
        args: its arguments, `KernelView` for the kernels that are followed.
        visitor: is told of the kernels' uses.
        live: which outputs anybody reads; the others are None. All of them by default.
    """
    values: dict[Any, Any] = {}
    alive = [True] * len(jaxpr.outvars) if live is None else list(live)
    wanted = _wanted(jaxpr, alive)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    def write(variables: Sequence[Any], made: Sequence[Any]) -> None:
        for var, value in zip(variables, made, strict=True):
            if visitor.abstract:
                value = replace(value, value=var.aval) if isinstance(value, KernelView) else var.aval
            values[var] = value

    write(jaxpr.constvars, consts)
    write(jaxpr.invars, args)
    for eqn in jaxpr.eqns:
        own = [bool(eqn.effects) or var in wanted for var in eqn.outvars]
        if not visitor.abstract and not any(own) and not eqn.effects:
            continue
        inputs = [read(atom) for atom in eqn.invars]
        if any(isinstance(value, KernelView) for value in inputs):
            write(eqn.outvars, _followed(eqn, inputs, Place(visitor, own)))
        else:
            write(eqn.outvars, _bind(eqn, inputs, visitor))
    return [read(atom) if lives else None for atom, lives in zip(jaxpr.outvars, alive, strict=True)]


def _wanted(jaxpr: Jaxpr, live: Sequence[bool]) -> set[Any]:
    """The variables that live outputs, or effects, depend on: other operations may read kernels for nothing."""
    outputs = zip(jaxpr.outvars, live, strict=True)
    wanted = {atom for atom, lives in outputs if lives and not isinstance(atom, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(var in wanted for var in eqn.outvars):
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
    return wanted


def _bind(eqn: JaxprEqn, inputs: Sequence[Any], visitor: Visitor) -> list[Any]:
    if visitor.abstract:
        return [var.aval for var in eqn.outvars]
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*inputs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _followed(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    rule = _RULES.get(eqn.primitive.name)
    if rule is None and eqn.primitive.name.startswith("custom_"):
        rule = _custom
    with eqn.ctx.manager:
        outputs = _decoded(eqn, inputs, place)
        if outputs is None and rule is not None:
            outputs = rule(eqn, inputs, place)
    if outputs is not None:
        return outputs
    for value in inputs:
        if isinstance(value, KernelView):
            carries = ", which carries it" if eqn.primitive.name in ("scan", "while") else ""
            place.refuse(value, f"{eqn.primitive.name}{carries}", f"a kernel that '{eqn.primitive.name}' reads")
    return _bind(eqn, [plain(value) for value in inputs], place.visitor)


# What leaves a kernel one: the rules return None where it can not be followed.


def _same(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    outputs = _bind(eqn, [plain(value) for value in inputs], place.visitor)
    views = [
        replace(value, value=out) if isinstance(value, KernelView) else out
        for value, out in zip(inputs, outputs, strict=True)
    ]
    return views


def _decoded(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    view = decoded(eqn, inputs)
    if view is None:
        return None
    for each in inputs:  # a scale may look like a kernel
        if isinstance(each, KernelView) and not is_coded(each):
            place.refuse(each, eqn.primitive.name)
    (value,) = _bind(eqn, [plain(each) for each in inputs], place.visitor)
    return [replace(view, value=value)]


def _cast(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if not jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
        return None
    return _same(eqn, inputs, place)


def _transpose(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    (value,) = _bind(eqn, [inputs[0].value], place.visitor)
    return [inputs[0].transposed(value, eqn.params["permutation"])]


def _reshape(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if eqn.params["dimensions"] is not None or not isinstance(inputs[0], KernelView):
        return None
    (value,) = _bind(eqn, [plain(each) for each in inputs], place.visitor)
    view = inputs[0].reshaped(value)
    return None if view is None else [view]


def _squeeze(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    (value,) = _bind(eqn, [inputs[0].value], place.visitor)
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
    (value,) = _bind(eqn, [inputs[0].value], place.visitor)
    return [replace(view, value=value)]


def _broadcast(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    view, shape, where = inputs[0], eqn.params["shape"], list(eqn.params["broadcast_dimensions"])
    if not isinstance(view, KernelView) or len(inputs) > 1:
        return None
    if any(size != 1 for axis, size in enumerate(shape) if axis not in where) or [
        shape[axis] for axis in where
    ] != list(view.value.shape):
        return None
    (value,) = _bind(eqn, [view.value], place.visitor)
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
    (value,) = _bind(eqn, [plain(each) for each in inputs], place.visitor)
    if place.visitor.abstract:
        return [replace(kernels[0], value=value, scale=others[0] if others else value)]
    number = jnp.float32(-1) if name == "neg" else jnp.reshape(others[0], ())
    number = 1 / number if name == "div" else number
    scale = number if kernels[0].scale is None else kernels[0].scale * number
    return [replace(kernels[0], value=value, scale=scale)]


# What uses a kernel.


def _product(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    kernels = [isinstance(value, KernelView) for value in inputs]
    if all(kernels):
        return None
    view, other = (inputs[0], inputs[1]) if kernels[0] else (inputs[1], inputs[0])
    return _visited(eqn, inputs, place, view, product_of(view, other, kernels[0], eqn.params))


def _lookup(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if not isinstance(inputs[0], KernelView) or isinstance(inputs[1], KernelView):
        return None
    return _visited(eqn, inputs, place, inputs[0], lookup_of(inputs[0], inputs[1], eqn.params))


def _convolution(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if isinstance(inputs[0], KernelView):
        return None
    return _visited(eqn, inputs, place, inputs[1], convolution_of(inputs[1], inputs[0], eqn.params))


def _floating(eqn: JaxprEqn) -> bool:
    out: Any = eqn.outvars[0].aval
    return bool(jnp.issubdtype(out.dtype, jnp.floating))


def _visited(eqn: JaxprEqn, inputs: list[Any], place: Place, view: KernelView, operation: Operation | str) -> list[Any]:
    out, name = None, eqn.primitive.name
    if view.stored == "codes" or not _floating(eqn):
        early = "" if view.stored == "values" else " before a scale has decoded it"
        place.refuse(view, name + early, f"a kernel that '{name}' reads{early}")
    elif isinstance(operation, str):
        place.refuse(view, "" if "part of one" in operation else name, operation)
    elif any(place.live):
        out = place.visitor.use(view, operation)
    return _bind(eqn, [plain(value) for value in inputs], place.visitor) if out is None else [out]


def _named(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    text = str(eqn.params["name"])
    if text.startswith(MARK):
        place.visitor.mark(inputs[0], text[len(MARK) :])
    return _same(eqn, inputs, place)


# What has a body of its own.


def _inline(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    closed: ClosedJaxpr = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
    return run(closed.jaxpr, closed.consts, inputs, place.visitor, place.live)


def _custom(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    """A function with derivatives of its own: its program is not the one that is differentiated."""
    closed = next((eqn.params[name] for name in ("call_jaxpr", "jaxpr", "fun_jaxpr") if name in eqn.params), None)
    visitor = place.visitor.custom(eqn.primitive.name)
    if visitor is None or not isinstance(closed, ClosedJaxpr) or len(closed.jaxpr.invars) != len(inputs):
        return None
    return run(closed.jaxpr, closed.consts, inputs, visitor, place.live)


def _checkpoint(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    def body(inputs: list[Any]) -> list[Any]:
        return run(eqn.params["jaxpr"], (), inputs, place.visitor, place.live)

    if place.visitor.abstract:
        return body(inputs)
    return jax.checkpoint(body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])(inputs)


def _cond(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if isinstance(inputs[0], KernelView):
        return None

    def branch(closed: ClosedJaxpr, operands: list[Any]) -> list[Any]:
        return place.ended(run(closed.jaxpr, closed.consts, operands, place.visitor, place.live), "cond")

    branches = [partial(branch, closed) for closed in eqn.params["branches"]]
    if place.visitor.abstract:
        made = [each(inputs[1:]) for each in branches]
        return made[0]
    return jax.lax.switch(inputs[0], branches, inputs[1:])


def _while(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    of_cond, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    start = of_cond + of_body
    if any(isinstance(value, KernelView) for value in inputs[start:]):
        return None
    cond, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]

    def going(carry: list[Any]) -> Any:
        return run(cond.jaxpr, cond.consts, [*inputs[:of_cond], *carry], place.visitor)[0]

    def step(carry: list[Any]) -> list[Any]:
        return place.ended(run(body.jaxpr, body.consts, [*inputs[of_cond:start], *carry], place.visitor), "while")

    if place.visitor.abstract:
        going(inputs[start:])
        return step(inputs[start:])
    return jax.lax.while_loop(going, step, inputs[start:])


class _Scan(NamedTuple):
    """A scan's inputs as they are passed on: a kernel that it carries unchanged is a constant."""

    constants: dict[int, Any]
    carried: dict[int, Any]
    layers: dict[int, Any]


def _counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many constants a scan has, and how many values it carries; JAX from 0.12 keeps the three groups of inputs."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(constants), len(carried)


def _scan(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    params, closed, visitor = eqn.params, eqn.params["jaxpr"], place.visitor
    first, carried = _counts(params)
    end = first + carried
    split = _Scan(dict(enumerate(inputs[:first])), {}, {})
    for index, value in enumerate(inputs[first:], first):
        if index >= end:
            if isinstance(value, KernelView) and value.layer() is None:
                return None
            split.layers[index] = value
        elif not isinstance(value, KernelView):
            split.carried[index] = value
        elif closed.jaxpr.outvars[index - first] is closed.jaxpr.invars[index]:
            split.constants[index] = value
        else:
            return None
    live = [True] * carried + place.live[carried:]

    def body(carry: dict[int, Any], layers: dict[int, Any]) -> tuple[dict[int, Any], list[Any]]:
        own = {i: value.layer() if isinstance(value, KernelView) else value for i, value in layers.items()}
        cut = {(value.path, value.slices) for value in own.values() if isinstance(value, KernelView)}
        known = {**split.constants, **carry, **own}
        out = run(closed.jaxpr, closed.consts, [known[i] for i in range(len(inputs))], visitor, live)
        after = dict(zip(carry, place.ended([out[i - first] for i in carry], "scan"), strict=True))
        made = []
        for y in out[carried:]:
            whole = isinstance(y, KernelView) and (y.path, y.slices) in cut
            made.append(y.layers() if whole else place.ended([y], "scan")[0])
        return after, made

    if visitor.abstract:
        after, ys = body(split.carried, split.layers)
    else:
        options: dict[str, Any] = {name: params[name] for name in ("length", "reverse", "unroll")}
        after, ys = jax.lax.scan(body, split.carried, split.layers, **options)
    known = {**split.constants, **after}
    return [*(known[i] for i in range(first, end)), *ys]


_RULES: dict[str, Callable[[JaxprEqn, list[Any], Place], list[Any] | None]] = {
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
    "remat": _checkpoint,
    "core_call": _inline,
    "name": _named,
    "mesh_cast": _same,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
