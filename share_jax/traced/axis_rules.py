"""What each operation of a program does with the axis along which the examples of a batch lie.

A rule takes the program that it stands in, the operation and where examples lie in its inputs, and says where they lie
in its outputs.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from share_jax.traced.interpreter import scan_counts
from share_jax.traced.places import LOST, MIXED, Lies, State


class Body(Protocol):
    """The program that an operation stands in."""

    size: int

    def inner(
        self, jaxpr: Any, inputs: Sequence[State], atoms: Sequence[Any] = (), outputs: Sequence[Any] | None = None
    ) -> list[State]:
        """Where examples lie in the outputs of an operation's body; `atoms` and `outputs` are what they are outside."""
        ...

    def counted(self, indices: Any, at: int) -> int | None:
        """The axis of indices along which their `at`-th number is i for example i; None if there is none."""
        ...

    def mixes(self, eqn: JaxprEqn) -> None:
        """Is told of an operation that makes an example depend on another one."""
        ...


Rule = Callable[[Any, JaxprEqn, list[State]], list[State]]


def shape_of(atom: Any) -> tuple[int, ...]:
    """Of a variable or a constant of a program."""
    return tuple(atom.aval.shape)


def _together(body: Body, eqn: JaxprEqn, states: Sequence[State]) -> State:
    """Of values of one shape that are combined number by number."""
    found = {state for state in states if state not in (None, MIXED)}
    if MIXED in states and found:
        body.mixes(eqn)
    if not found:
        return MIXED if MIXED in states else None
    if len({state.axis for state in found if isinstance(state, Lies)}) > 1:
        body.mixes(eqn)
    return found.pop() if len(found) == 1 else LOST


def unknown(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    """Of an operation that has no rule."""
    return [LOST] * len(eqn.outvars)


def _elementwise(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    return [_together(body, eqn, own)] * len(eqn.outvars)


def _each(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    return own


# Operations along some of the axes.


def _lost(lies: Lies) -> State:
    return LOST


def _mixed(lies: Lies) -> State:
    """Nothing of single examples is left."""
    return MIXED


def _turned(lies: Lies) -> State:
    if lies.rows > 1 or lies.order == "moved":
        return LOST
    return lies._replace(order="turned" if lies.order == "own" else "own")


def _moved(lies: Lies) -> State:
    return lies._replace(order="moved") if lies.rows == 1 and lies.order == "own" else LOST


def _along(name: str, then: Callable[[Lies], State] = _lost, cut: bool = False) -> Rule:
    """Of operations along the axes that a parameter names; others stay, or move up where these go (`cut`)."""

    def rule(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
        lies = _together(body, eqn, own)
        if not isinstance(lies, Lies):
            return [lies] * len(eqn.outvars)
        named = eqn.params[name]
        axes = tuple(named) if isinstance(named, tuple | list) else (named,)
        if lies.axis in axes:
            return [then(lies)] * len(eqn.outvars)
        return [lies._replace(axis=lies.axis - sum(cut and each < lies.axis for each in axes))] * len(eqn.outvars)

    return rule


def _running(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    """Along one axis each place depends on all before it."""
    lies = own[0]
    if isinstance(lies, Lies) and lies.axis == eqn.params["axis"]:
        body.mixes(eqn)
        return [LOST]
    return own


def _sort(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    """All operands are put into one order; what was no example is at places that are not known."""
    axis = eqn.params["dimension"]
    if not any(isinstance(state, Lies) and state.axis == axis for state in own):
        return _elementwise(body, eqn, own)
    return [_moved(state) if isinstance(state, Lies) and state.axis == axis else LOST for state in own]


def _broadcast(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    lies = own[0]
    return [lies._replace(axis=eqn.params["broadcast_dimensions"][lies.axis]) if isinstance(lies, Lies) else lies]


def _transpose(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    lies = own[0]
    return [lies._replace(axis=eqn.params["permutation"].index(lies.axis)) if isinstance(lies, Lies) else lies]


def _reshape(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    lies, before, after = own[0], shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    if not isinstance(lies, Lies):
        return [lies]
    length, ahead = before[lies.axis], prod(before[: lies.axis])
    for axis, other in enumerate(after):
        whole = other and other % body.size == 0 and (other % length == 0 or length % other == 0)
        if prod(after[:axis]) == ahead and whole:
            return [lies._replace(axis=axis, rows=other // body.size)]
    return [LOST]


def _concatenate(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    lies = _together(body, eqn, own)
    return [LOST if isinstance(lies, Lies) and lies.axis == eqn.params["dimension"] else lies]


def _whole(lies: State, before: tuple[int, ...], after: tuple[int, ...]) -> State:
    return lies if not isinstance(lies, Lies) or before[lies.axis] == after[lies.axis] else LOST


def _slice(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    """Indices among the operands choose no examples where the axis stays whole."""
    return [_whole(own[0], shape_of(eqn.invars[0]), shape_of(eqn.outvars[0]))]


def _update(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    return [_whole(_together(body, eqn, own[:2]), shape_of(eqn.invars[0]), shape_of(eqn.invars[1]))]


def _pad(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    lies = own[0]
    if isinstance(lies, Lies) and tuple(eqn.params["padding_config"][lies.axis]) != (0, 0, 0):
        return [LOST]
    return [lies]


def _window(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    lies, params = _together(body, eqn, own), eqn.params
    if isinstance(lies, Lies):
        at = lies.axis
        found = (params["window_dimensions"][at], params["window_strides"][at], *params["padding"][at])
        lies = lies if found == (1, 1, 0, 0) else LOST
    return [lies] * len(eqn.outvars)


# Products.


def _product(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    """The axis stays where it is not contracted; of two that are not the same, neither is the batch's."""
    contracted, batch = eqn.params["dimension_numbers"]
    found: list[State] = []
    for side, lies in enumerate(own):
        if not isinstance(lies, Lies):
            found.append(lies)
        elif lies.axis in batch[side]:
            found.append(lies._replace(axis=tuple(batch[side]).index(lies.axis)))
        elif lies.axis in contracted[side]:
            found.append(MIXED)
        else:
            taken = {*contracted[side], *batch[side]}
            ahead = sum(axis not in taken for axis in range(lies.axis))
            first = len(batch[0]) + side * (len(shape_of(eqn.invars[0])) - len(batch[0]) - len(contracted[0]))
            found.append(lies._replace(axis=first + ahead))
    return [_together(body, eqn, found)]


def _convolution(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    numbers, lies = eqn.params["dimension_numbers"], own[0]
    if own[1] in (None, MIXED):
        lies = _together(body, eqn, own)
    if own[1] not in (None, MIXED) or not isinstance(lies, Lies):
        return [lies if own[1] in (None, MIXED) else LOST]
    plain = lies.axis == numbers.lhs_spec[0] and eqn.params["batch_group_count"] == 1
    return [lies._replace(axis=numbers.out_spec[0]) if plain else LOST]


# Indices.


def _gather(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    numbers, indices = eqn.params["dimension_numbers"], own[1]
    ahead = [axis for axis in range(len(shape_of(eqn.outvars[0]))) if axis not in numbers.offset_dims]
    found = [_gathered(body, eqn, own[0], ahead), indices]
    if isinstance(found[0], Lies) and found[0].order == "moved":
        return [found[0]]
    if isinstance(indices, Lies):
        last = len(shape_of(eqn.invars[1])) - 1
        found[1] = LOST if indices.axis == last else indices._replace(axis=ahead[indices.axis])
    return [_together(body, eqn, found)]


def _gathered(body: Body, eqn: JaxprEqn, table: State, ahead: list[int]) -> State:
    """Where the examples of the table lie; `ahead` are the result's axes that are those of the indices."""
    if not isinstance(table, Lies):
        return table
    numbers, shape = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
    chosen, batching = numbers.start_index_map, numbers.operand_batching_dims
    if table.axis in batching:
        return table._replace(axis=ahead[numbers.start_indices_batching_dims[batching.index(table.axis)]])
    if table.axis not in chosen:
        if eqn.params["slice_sizes"][table.axis] != shape[table.axis]:
            return LOST
        left = [axis for axis in range(len(shape)) if axis not in {*numbers.collapsed_slice_dims, *batching}]
        return table._replace(axis=numbers.offset_dims[left.index(table.axis)])
    if table.rows > 1:
        return LOST
    at = body.counted(eqn.invars[1], chosen.index(table.axis))
    if at is not None:
        return table._replace(axis=ahead[at])
    places = [axis for axis, length in enumerate(shape_of(eqn.invars[1])[:-1]) if length == body.size]
    if len(places) == 1 and len(chosen) == 1 and table.order == "own":
        return table._replace(axis=ahead[places[0]], order="moved")
    return LOST


def _scatter(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    table, indices, updates = own
    chosen = eqn.params["dimension_numbers"].scatter_dims_to_operand_dims
    counted = {axis: body.counted(eqn.invars[1], at) for at, axis in enumerate(chosen)}
    if indices == LOST or (isinstance(table, Lies) and table.axis in chosen and counted[table.axis] is None):
        return [LOST]
    return [_together(body, eqn, [table, _scattered(eqn, updates, counted)])]


def _scattered(eqn: JaxprEqn, updates: State, counted: dict[int, int | None]) -> State:
    """Where the examples of the updates lie in the result."""
    if not isinstance(updates, Lies):
        return updates
    numbers, shape, own = eqn.params["dimension_numbers"], shape_of(eqn.invars[0]), shape_of(eqn.invars[2])
    batching, inside = numbers.operand_batching_dims, numbers.update_window_dims
    if updates.axis in inside:
        left = [axis for axis in range(len(shape)) if axis not in {*numbers.inserted_window_dims, *batching}]
        axis = left[inside.index(updates.axis)]
        return updates._replace(axis=axis) if shape[axis] == own[updates.axis] else LOST
    at = [axis for axis in range(len(own)) if axis not in inside].index(updates.axis)
    places = {place: axis for axis, place in counted.items() if place is not None}
    places |= zip(numbers.scatter_indices_batching_dims, batching, strict=True)
    return updates._replace(axis=places[at]) if at in places else LOST


# What has a body of its own.


def _call(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    jaxpr = next((eqn.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in eqn.params), None)
    if not isinstance(jaxpr, ClosedJaxpr | Jaxpr):
        return unknown(body, eqn, own)
    return body.inner(jaxpr, own, eqn.invars, eqn.outvars)


def _cond(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    branches = [body.inner(branch, own[1:]) for branch in eqn.params["branches"]]
    chosen = [MIXED] if own[0] == MIXED else []
    return [_together(body, eqn, [*states, *chosen]) for states in zip(*branches, strict=True)]


def _settled(step: Callable[[list[State]], list[State]], carry: list[State]) -> list[State]:
    """What stays of the places in a loop's carry, however often it runs."""
    while True:
        after = [_worse(old, new) for old, new in zip(carry, step(carry), strict=True)]
        if after == carry:
            return carry
        carry = after


def _worse(old: State, new: State) -> State:
    """Of a value in a loop's carry that is one thing before a step and may be another after it."""
    if old == new or (old == MIXED and new is None):
        return old
    return new if old in (None, MIXED) else LOST


def _while(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    of_cond, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    consts = own[of_cond : of_cond + of_body]
    carry = _settled(lambda carry: body.inner(eqn.params["body_jaxpr"], [*consts, *carry]), own[of_cond + of_body :])
    (goes_on,) = body.inner(eqn.params["cond_jaxpr"], [*own[:of_cond], *carry])
    chosen = [MIXED] if goes_on == MIXED else []
    return [_together(body, eqn, [state, *chosen]) for state in carry]


def _scan(body: Body, eqn: JaxprEqn, own: list[State]) -> list[State]:
    params = eqn.params
    first, carried = scan_counts(params)
    inside = [_layer(state) for state in own[first + carried :]]

    def step(carry: list[State]) -> list[State]:
        return body.inner(params["jaxpr"], [*own[:first], *carry, *inside])

    carry = _settled(lambda carry: step(carry)[:carried], own[first : first + carried])
    made = step(carry)[carried:]
    return [*carry, *(y._replace(axis=y.axis + 1) if isinstance(y, Lies) else y for y in made)]


def _layer(state: State) -> State:
    """Of what a scan takes in one step."""
    if not isinstance(state, Lies):
        return state
    return state._replace(axis=state.axis - 1) if state.axis else LOST


_CALLS = (
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr",
)  # fmt: skip
BODIES = {*_CALLS, "cond", "while", "scan"}
"""Operations with bodies, which are looked into whatever goes in: there may be marks."""

_NUMBER_BY_NUMBER = (
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e",
    "bessel_i1e", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type", "copy", "copy_p", "cos",
    "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma",
    "igammac", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "polygamma", "population_count", "pow", "real", "reduce_precision",
    "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical",
    "sharding_constraint", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
    "zeta",
)  # fmt: skip
_OVER = (
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor", "argmax",
    "argmin",
)  # fmt: skip
_CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
_WINDOWS = ("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_NUMBER_BY_NUMBER, _elementwise),
    **dict.fromkeys(_OVER, _along("axes", _mixed, cut=True)),
    "reduce": _along("dimensions", _mixed, cut=True),
    **dict.fromkeys(_CUMULATIVE, _running),
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(_CALLS, _call),
    "name": _each,
    "optimization_barrier": _each,
    "rev": _along("dimensions", _turned),
    "sort": _sort,
    "split": _along("axis"),
    "squeeze": _along("dimensions", cut=True),
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "slice": _slice,
    "dynamic_slice": _slice,
    "dynamic_update_slice": _update,
    "pad": _pad,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "gather": _gather,
    "scatter": _scatter,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
"""By the name of the operation; what is not here loses the axis."""
