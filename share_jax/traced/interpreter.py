"""Runs a traced program again, operation by operation, and follows kernels through it to the operations that use them.

A kernel is followed as `kernel_flow` says, and into the bodies of `jit`, `checkpoint`, `scan`, `while_loop` and `cond`.
What reads it at the end is a `Visitor`'s business. All other operations run as they were traced.

Source: "Writing custom interpreters in JAX", https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from share_jax.traced.dense_product import product_of
from share_jax.traced.joined import Joined, kernels_in, lies, plain, product_of_parts, with_value
from share_jax.traced.kernel_flow import FOLLOWED, Rule, bind, concatenated, decoded_of, each_part, floating
from share_jax.traced.kernel_view import KernelView
from share_jax.traced.lookups import convolution_of, lookup_of
from share_jax.traced.operations import Operation
from share_jax.traced.visitor import Place, Visitor, read_by


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
            values[var] = with_value(value, var.aval) if visitor.abstract else value

    write(jaxpr.constvars, consts)
    write(jaxpr.invars, args)
    for eqn in jaxpr.eqns:
        own = [bool(eqn.effects) or var in wanted for var in eqn.outvars]
        if not visitor.abstract and not any(own) and not eqn.effects:
            continue
        inputs = [read(atom) for atom in eqn.invars]
        if any(isinstance(value, (KernelView, Joined)) for value in inputs):
            write(eqn.outvars, _followed(eqn, inputs, Place(visitor, own)))
        else:
            write(eqn.outvars, bind(eqn, inputs, visitor))
    return [read(atom) if lives else None for atom, lives in zip(jaxpr.outvars, alive, strict=True)]


def _wanted(jaxpr: Jaxpr, live: Sequence[bool]) -> set[Any]:
    """The variables that live outputs, or effects, depend on: other operations may read kernels for nothing."""
    outputs = zip(jaxpr.outvars, live, strict=True)
    wanted = {atom for atom, lives in outputs if lives and not isinstance(atom, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(var in wanted for var in eqn.outvars):
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
    return wanted


def _followed(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any]:
    fused = any(isinstance(value, Joined) for value in inputs)
    rule = (_OF_JOINED if fused else _RULES).get(eqn.primitive.name)
    if rule is None and not fused and eqn.primitive.name.startswith("custom_"):
        rule = _custom
    with eqn.ctx.manager:
        outputs = None if fused else decoded_of(eqn, inputs, place)
        if outputs is None and rule is not None:
            outputs = rule(eqn, inputs, place)
    if outputs is not None:
        return outputs
    carries = ", which carries it" if eqn.primitive.name in ("scan", "while") else ""
    for view in (view for value in inputs for view in kernels_in(value)):
        place.refuse(view, f"{eqn.primitive.name}{carries}", read_by(eqn.primitive.name))
    return bind(eqn, [plain(value) for value in inputs], place.visitor)


# What uses a kernel.


def _product(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    kernels = [isinstance(value, KernelView) for value in inputs]
    if all(kernels):
        return None
    view, other = (inputs[0], inputs[1]) if kernels[0] else (inputs[1], inputs[0])
    return _visited(eqn, inputs, place, view, product_of(view, other, kernels[0], eqn.params))


def _product_of_parts(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if all(kernels_in(value) for value in inputs):
        operands = [value for value in inputs if isinstance(value, Joined) and not value.all_kernels]
        if len(operands) != 1:
            return None
        for view in operands[0].views:  # as a learnt token among those of the input
            place.refuse(view, eqn.primitive.name)
        inputs = [plain(value) if value is operands[0] else value for value in inputs]
        if not any(isinstance(value, Joined) for value in inputs):
            return _product(eqn, inputs, place)
    first = isinstance(inputs[0], Joined)
    whole, x = (inputs[0], inputs[1]) if first else (inputs[1], inputs[0])
    where = lies(whole, x, first, eqn.params)
    if where is None:
        return None

    def product(part: Any, x: Any) -> Any:
        pair = [part, x] if first else [x, part]
        out = _product(eqn, pair, place) if isinstance(part, KernelView) else bind(eqn, pair, place.visitor)
        return out[0] if out else None

    if not place.visitor.abstract:
        return [product_of_parts(whole, x, where, product)]
    for view in whole.views:
        product(view, x)
    return bind(eqn, inputs, place.visitor)


def _lookup(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if not isinstance(inputs[0], KernelView) or isinstance(inputs[1], KernelView):
        return None
    return _visited(eqn, inputs, place, inputs[0], lookup_of(inputs[0], inputs[1], eqn.params))


def _convolution(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    if isinstance(inputs[0], KernelView):
        return None
    return _visited(eqn, inputs, place, inputs[1], convolution_of(inputs[1], inputs[0], eqn.params))


def _visited(eqn: JaxprEqn, inputs: list[Any], place: Place, view: KernelView, operation: Operation | str) -> list[Any]:
    out, name = None, eqn.primitive.name
    if view.stored == "codes" or not floating(eqn):
        early = "" if view.stored == "values" else " before a scale has decoded it"
        place.refuse(view, name + early, f"a kernel that '{name}' reads{early}")
    elif isinstance(operation, str):
        place.refuse(view, "" if "part of one" in operation else name, operation)
    elif any(place.live):
        out = place.visitor.use(view, operation)
    return bind(eqn, [plain(value) for value in inputs], place.visitor) if out is None else [out]


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


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many constants a scan has, and how many values it carries; JAX from 0.12 keeps the three groups of inputs."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(constants), len(carried)


def _scan(eqn: JaxprEqn, inputs: list[Any], place: Place) -> list[Any] | None:
    params, closed, visitor = eqn.params, eqn.params["jaxpr"], place.visitor
    first, carried = scan_counts(params)
    end = first + carried
    split = _Scan(dict(enumerate(inputs[:first])), {}, {})
    for index, value in enumerate(inputs[first:], first):
        if isinstance(value, Joined):
            return None
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


_RULES: dict[str, Rule] = {
    **FOLLOWED,
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
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
_OF_JOINED: dict[str, Rule] = {
    **dict.fromkeys(("convert_element_type", "copy", "copy_p", "stop_gradient", "transpose"), each_part),
    "concatenate": concatenated,
    "dot_general": _product_of_parts,
    **{name: _RULES[name] for name in ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat")},
    "scan": _scan,
}
