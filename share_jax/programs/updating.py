"""Running a traced program with low-rank updates at the operations that read its kernels.

The update of a kernel is never formed: where the program contracts a kernel's inputs, x @ A @ B is added to the
operation's output, in the output's axes and dtype; where it contracts the outputs, as a tied output layer does, that
is x @ B.T @ A.T. What the program does not need to know of a kernel stays as it was traced: calls, scans with their
unrolling, rematerialisation with its policy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from share_jax.layers.deltas import as_rows, cast
from share_jax.layers.targets import Target
from share_jax.ops.products import down_product
from share_jax.parameterizations.base import Parameterization
from share_jax.programs.reading import Use, inner_programs, program_of, use_of, viewed
from share_jax.programs.views import View, in_order, whole
from share_jax.typing import Array, Leaves

Pairs = list[tuple[Leaves, Leaves]]
"""Of each kernel its shared leaves and its slot's; with axes of layers in front until a scan takes them."""


@dataclass(frozen=True)
class Updates:
    """What is added to a program.

    Attributes:
        method: the parameterisation.
        targets: the kernels that are the program's first inputs, in order.
    """

    method: Parameterization
    targets: tuple[Target, ...]


def run_updated(run: Callable[[list], Any], kernels: Sequence[Array], updates: Updates, pairs: Pairs) -> Any:
    """A function of kernels with an update of each.

    Args:
        run: called with the kernels; closes over all else.
        kernels: whole arrays, with their stacked axes.
        updates: whose kernels these are.
        pairs: of each its shared and its task's leaves, with the axis of stacked layers in front where there are any.

    Returns:
        What `run` returns, with each kernel's update at the operations that read it.
    """
    closed, result = program_of(run, kernels)
    for at, target in enumerate(updates.targets):
        lengths = tuple(kernels[at].shape[axis] for axis in target.layer_axes)
        if len(lengths) > 1:
            pairs[at] = jax.tree.map(lambda leaf, lengths=lengths: leaf.reshape(lengths + leaf.shape[1:]), pairs[at])
    views = {var: whole(at, var.aval.shape) for at, var in enumerate(closed.jaxpr.invars)}
    return result(_Run(updates).program(closed.jaxpr, closed.consts, list(kernels), views, pairs))


@dataclass(frozen=True)
class _Run:
    updates: Updates

    def program(
        self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], known: Mapping[Var, View], pairs: Pairs
    ) -> list[Any]:
        """The outputs of a program whose variables `known` are views of kernels."""
        views = dict(known)
        values: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

        def value(var: Any) -> Any:
            return var.val if isinstance(var, Literal) else values[var]

        for eqn in jaxpr.eqns:
            operands = [None if isinstance(var, Literal) else views.get(var) for var in eqn.invars]
            out = self.operation(eqn, [value(var) for var in eqn.invars], operands, pairs)
            values.update(zip(eqn.outvars, out, strict=True))
            if any(operands) and (made := viewed(eqn, operands)) is not None:
                views.update({var: view for var, view in zip(eqn.outvars, made, strict=True) if view is not None})
        return [value(var) for var in jaxpr.outvars]

    def operation(self, eqn: JaxprEqn, args: list[Any], operands: Sequence[View | None], pairs: Pairs) -> Sequence[Any]:
        if any(operands) and viewed(eqn, operands) is None:
            inner = inner_programs(eqn, operands, [True] * len(eqn.outvars))
            if inner is not None and "custom" not in eqn.primitive.name:
                return self.inner(eqn, args, operands, pairs)
            for at, view in enumerate(operands):
                use = None if view is None else use_of(eqn, at, view)
                if use is not None:
                    (y,) = _as_it_is(eqn, args)
                    return [y + self.delta(eqn, use, at, args[1 - at], pairs[use.view.leaf], y)]
        return _as_it_is(eqn, args)

    def inner(self, eqn: JaxprEqn, args: list[Any], operands: Sequence[View | None], pairs: Pairs) -> Sequence[Any]:
        name, params = eqn.primitive.name, eqn.params
        if name == "scan":
            return self.scan(params, args, operands, pairs)
        if name == "while":
            return self.while_loop(params, args, operands, pairs)
        if name == "cond":
            branches = [lambda pairs, *args, b=b: self.nested(b, args, operands[1:], pairs) for b in params["branches"]]
            return jax.lax.switch(args[0], branches, pairs, *args[1:])
        program = params.get("jaxpr", params.get("call_jaxpr"))

        def call(pairs: Pairs, *args: Any) -> list[Any]:
            return self.nested(program, args, operands, pairs)

        if name in ("remat2", "checkpoint", "remat"):
            call = jax.checkpoint(call, policy=params["policy"], prevent_cse=params["prevent_cse"])
        return call(pairs, *args)

    def nested(self, program: Any, args: Sequence[Any], operands: Sequence[View | None], pairs: Pairs) -> list[Any]:
        closed = program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, [])
        views = {var: x for var, x in zip(closed.jaxpr.invars, operands, strict=True) if x is not None}
        return self.program(closed.jaxpr, closed.consts, args, views, pairs)

    def scan(
        self, params: Mapping[str, Any], args: list[Any], operands: Sequence[View | None], pairs: Pairs
    ) -> Sequence[Any]:
        first = params["num_consts"]
        split = first + params["num_carry"]
        consts, carry, stacks = args[:first], args[first:split], args[split:]
        cut = [None if view is None else view.sliced() for view in operands[split:]]
        own = [*operands[:first], *[None] * params["num_carry"], *cut]
        layered = sorted({view.leaf for view in cut if view is not None})

        def body(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
            here, stacks = slices
            inside = [here.get(at, pair) for at, pair in enumerate(pairs)]
            out = self.nested(params["jaxpr"], [*consts, *carry, *stacks], own, inside)
            return out[: len(carry)], out[len(carry) :]

        each = {at: pairs[at] for at in layered}
        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        after, made = jax.lax.scan(body, list(carry), (each, list(stacks)), **options)
        return [*after, *made]

    def while_loop(
        self, params: Mapping[str, Any], args: list[Any], operands: Sequence[View | None], pairs: Pairs
    ) -> Sequence[Any]:
        split, total = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        none: list[View | None] = [None] * (len(args) - total)

        def condition(carry: list[Any]) -> Any:
            return self.nested(params["cond_jaxpr"], [*args[:split], *carry], [*operands[:split], *none], pairs)[0]

        def body(carry: list[Any]) -> list[Any]:
            own = [*operands[split:total], *none]
            return self.nested(params["body_jaxpr"], [*args[split:total], *carry], own, pairs)

        return jax.lax.while_loop(condition, body, list(args[total:]))

    def delta(self, eqn: JaxprEqn, use: Use, at: int, x: Any, pair: tuple[Leaves, Leaves], y: Array) -> Array:
        """What the update adds to the output `y` of an operation; its operand `at` is the kernel, `x` the other."""
        target, method = self.updates.targets[use.view.leaf], self.updates.method
        shared, slot = (cast(own, y.dtype) for own in pair)

        def up(h: Array) -> Array:
            return method.up(shared, slot, h)

        if use.kind == "gather":
            return _gathered(eqn.params, use, method.down(shared, slot), x, up)
        if use.kind == "conv":
            return _convolved(eqn.params, use, method.down(shared, slot), x.astype(y.dtype), up)
        if contracts_inputs(target, use):
            return _dotted(eqn.params, use, at, method.down(shared, slot), x.astype(y.dtype), up)
        a, b = method.factors(shared, slot)
        transposed = [jnp.swapaxes(matrix, -1, -2) for matrix in (b, a)]
        return _dotted(eqn.params, use, at, transposed[0], x.astype(y.dtype), lambda h: down_product(h, transposed[1]))


def _as_it_is(eqn: JaxprEqn, args: Sequence[Any]) -> Sequence[Any]:
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params))
    return out if eqn.primitive.multiple_results else [out]


def contracts_inputs(target: Target, use: Use) -> bool:
    """Whether an operation contracts the kernel's inputs, and not its outputs."""
    layer = [axis for axis in range(len(target.shape) + len(target.layer_axes)) if axis not in target.layer_axes]
    inputs = {layer[axis] for axis in target.order[: target.in_axes] if target.shape[axis] > 1}
    return inputs == {part.axis for axis in use.axes(use.inputs) for part in axis if part.size > 1}


def _outputs(delta: Array, free: tuple[int, ...], use: Use) -> Array:
    """An update (batch, n, d_out) in the shape (*free, *axes that the kernel gives to the output)."""
    axes = use.axes(use.outputs)
    sizes, order = in_order(axes)
    parts = delta.reshape(free + tuple(sizes[at] for at in order))
    back = tuple(len(free) + order.index(at) for at in range(len(order)))
    shape = tuple(math.prod(part.size for part in axis) for axis in axes)
    return parts.transpose((*range(len(free)), *back)).reshape(free + shape)


def _dotted(params: Mapping[str, Any], use: Use, at: int, down: Array, x: Array, up: Callable[[Array], Array]) -> Array:
    contracted = params["dimension_numbers"][0][1 - at]
    kept = tuple(axis for axis in range(x.ndim) if axis not in contracted)
    free = tuple(x.shape[axis] for axis in kept)
    sizes, order = in_order(use.axes(use.inputs))
    parts = x.transpose((*kept, *contracted)).reshape(free + sizes)
    parts = parts.transpose((*range(len(free)), *(len(free) + part for part in order)))
    rows = as_rows(parts.reshape((*free, down.shape[-2])), down.shape[-2])
    delta = _outputs(up(down_product(rows, down)), free, use)
    return delta if at else jnp.moveaxis(delta, range(len(free)), range(delta.ndim - len(free), delta.ndim))


def _gathered(params: Mapping[str, Any], use: Use, down: Array, ids: Array, up: Callable[[Array], Array]) -> Array:
    free = ids.shape[:-1]
    numbers = jax.lax.GatherDimensionNumbers((len(free),), (0,), (0,))
    options = {name: params[name] for name in ("unique_indices", "indices_are_sorted", "mode")}
    h = jax.lax.gather(down, ids, numbers, (1, down.shape[-1]), **options, fill_value=0)
    delta = _outputs(up(as_rows(h, down.shape[-1])), free, use)
    offsets = params["dimension_numbers"].offset_dims
    return jnp.moveaxis(delta, range(len(free), delta.ndim), offsets)


def _convolved(params: Mapping[str, Any], use: Use, down: Array, x: Array, up: Callable[[Array], Array]) -> Array:
    axes = use.axes(use.inputs)
    sizes, order = in_order(axes)
    parts = down.reshape((*(sizes[at] for at in order), down.shape[-1]))
    parts = parts.transpose((*(order.index(at) for at in range(len(order))), len(order)))
    window = parts.reshape((*(math.prod(part.size for part in axis) for axis in axes), down.shape[-1]))
    kernel = jnp.moveaxis(window, -1, use.outputs[0])
    h = jax.lax.conv_general_dilated_p.bind(x, kernel, **params)
    features = params["dimension_numbers"].out_spec[1]
    h = jnp.moveaxis(h, features, -1)
    delta = _outputs(up(as_rows(h, h.shape[-1])), h.shape[:-1], use)
    return jnp.moveaxis(delta, -1, features)
