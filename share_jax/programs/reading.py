"""Which operations of a traced program read a kernel, and along which of its axes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from share_jax.programs.views import Axis, View, whole
from share_jax.typing import Array

MARK = "share_jax:"
"""Names that begin with it say that a module has this kernel; see `marked`."""

CALLS = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat"}
"""Primitives that run one inner program on their operands."""

SAME = {"copy", "copy_p", "sharding_constraint", "optimization_barrier", "name", "mesh_cast"}
"""Primitives that return their operands as they are."""


class Use(NamedTuple):
    """One operation that reads a kernel.

    Attributes:
        kind: "dot", "gather", "conv", "mark", or "other" for what is none of these.
        view: the kernel as the operation gets it.
        inputs: axes of the view that are contracted, or looked up by a gather.
        batch: axes of the view that run along an axis of the other operand.
        note: the mark's text, or of "other" what the operation is.
        custom: within a function with derivatives of its own, whose program is not the one that is differentiated.
    """

    kind: str
    view: View
    inputs: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    note: str = ""
    custom: bool = False

    @property
    def outputs(self) -> tuple[int, ...]:
        """Axes of the view that become axes of the operation's output alone."""
        return tuple(axis for axis in range(len(self.view.axes)) if axis not in (*self.inputs, *self.batch))

    def axes(self, which: Sequence[int]) -> tuple[Axis, ...]:
        """Those axes of the view."""
        return tuple(self.view.axes[axis] for axis in which)


def marked(kernel: Array, text: str) -> None:
    """Leaves a mark in the program that is being traced: here this array is a kernel. It costs nothing when it runs.

    The array is flattened, so that an axis that `jax.vmap` hides from the one who marks stands apart in the program.
    """
    checkpoint_name(jnp.reshape(kernel, (-1,)), f"{MARK}{text}")


def reading(closed: ClosedJaxpr, count: int) -> list[list[Use]]:
    """How a program uses its first inputs.

    Args:
        closed: from `jax.make_jaxpr`.
        count: how many of its inputs are kernels.

    Returns:
        For each kernel the operations that read it and that the program's output depends on, and all marks.
    """
    found = _Reading([[] for _ in range(count)])
    views = {var: whole(at, var.aval.shape) for at, var in enumerate(closed.jaxpr.invars[:count])}
    found.walk(closed.jaxpr, views, [True] * len(closed.jaxpr.outvars))
    return found.uses


@dataclass
class _Reading:
    uses: list[list[Use]]
    custom: bool = field(default=False)

    def note(self, kind: str, view: View, **more: Any) -> None:
        self.uses[view.leaf].append(Use(kind, view, **more, custom=self.custom))

    def walk(self, jaxpr: Jaxpr, views: dict[Var, View], live: Sequence[bool]) -> None:
        """Reads a program whose inputs these views are; `live` says which of its outputs anybody reads."""
        views = dict(views)
        wanted = needed(jaxpr, live)
        for eqn in jaxpr.eqns:
            operands = [None if isinstance(var, Literal) else views.get(var) for var in eqn.invars]
            if not any(operands):
                continue
            alive = [var in wanted for var in eqn.outvars]
            name = eqn.primitive.name
            if name == "name" and str(eqn.params["name"]).startswith(MARK):
                self.note("mark", _first(operands), note=str(eqn.params["name"])[len(MARK) :])
                continue
            if (made := viewed(eqn, operands)) is not None:
                views.update({var: view for var, view in zip(eqn.outvars, made, strict=True) if view is not None})
                continue
            inner = inner_programs(eqn, operands, alive)
            if inner is None:
                if any(alive) or eqn.effects:
                    self.operation(eqn, operands)
                continue
            for view in inner.lost:
                self.note("other", view, note=f"{name}, which carries it")
            outside = self.custom
            self.custom = outside or "custom" in name
            for program, own, live_inside in inner.programs:
                known = {var: view for var, view in zip(program.invars, own, strict=True) if view is not None}
                self.walk(program, known, live_inside)
            self.custom = outside
        for var, alive in zip(jaxpr.outvars, live, strict=True):
            if alive and not isinstance(var, Literal) and var in views:
                self.note("other", views[var], note="the output, which it is a part of")

    def operation(self, eqn: JaxprEqn, operands: Sequence[View | None]) -> None:
        for at, view in enumerate(operands):
            if view is not None:
                use = use_of(eqn, at, view) if sum(x is not None for x in operands) == 1 else None
                if use is None:
                    self.note("other", view, note=eqn.primitive.name)
                else:
                    self.uses[view.leaf].append(use._replace(custom=self.custom))


def _first(operands: Sequence[View | None]) -> View:
    return next(view for view in operands if view is not None)


def needed(jaxpr: Jaxpr, live: Sequence[bool]) -> set[Var]:
    """The variables of a program that its live outputs, or its effects, depend on."""
    pairs = zip(jaxpr.outvars, live, strict=True)
    wanted = {var for var, alive in pairs if alive and not isinstance(var, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(var in wanted for var in eqn.outvars):
            wanted.update(var for var in eqn.invars if not isinstance(var, Literal))
    return wanted


def viewed(eqn: JaxprEqn, operands: Sequence[View | None]) -> list[View | None] | None:
    """What an operation makes of views that it only shows in another way; None for any other operation."""
    name, params = eqn.primitive.name, eqn.params
    if name in SAME:
        return list(operands)
    if len(operands) != 1 or operands[0] is None:
        return None
    view = operands[0]
    aval: Any = eqn.invars[0].aval
    out: Any = eqn.outvars[0].aval
    if name == "convert_element_type":
        floats = jnp.issubdtype(aval.dtype, jnp.floating) and jnp.issubdtype(out.dtype, jnp.floating)
        return [view] if floats else None
    if name == "transpose":
        return [view.transposed(params["permutation"])]
    if name == "squeeze" or (name == "reshape" and params["dimensions"] is None):
        made = view.reshaped(out.shape)
        return None if made is None else [made]
    if name == "broadcast_in_dim" and out.size == aval.size:
        kept = params["broadcast_dimensions"]
        made = view.reshaped(out.shape) if list(kept) == sorted(kept) else None
        return None if made is None else [made]
    return None


class Inner(NamedTuple):
    """The programs within an operation: each with the views of its inputs and which of its outputs are read."""

    programs: list[tuple[Jaxpr, list[View | None], list[bool]]]
    lost: list[View]


def inner_programs(eqn: JaxprEqn, operands: Sequence[View | None], live: Sequence[bool]) -> Inner | None:
    """The programs that an operation runs on views; None if it runs none."""
    name, params = eqn.primitive.name, eqn.params
    alive = list(live)
    if name == "scan":
        program = params["jaxpr"].jaxpr
        consts, carry = params["num_consts"], params["num_carry"]
        stacks = [None if view is None else view.sliced() for view in operands[consts + carry :]]
        carried = [view for view in operands[consts : consts + carry] if view is not None]
        uncut = [v for v, cut in zip(operands[consts + carry :], stacks, strict=True) if v is not None and cut is None]
        own = [*operands[:consts], *[None] * carry, *stacks]
        inside = [True] * carry + alive[carry:]  # a carry may be read by the next round
        return Inner([(program, own, inside)], carried + uncut)
    if name == "while":
        split, total = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        carried = [view for view in operands[total:] if view is not None]
        rest: list[View | None] = [None] * (len(operands) - total)
        condition, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
        own = ([*operands[:split], *rest], [*operands[split:total], *rest])
        return Inner([(condition, own[0], [True]), (body, own[1], [True] * len(rest))], carried)
    if name == "cond":
        programs = [(branch.jaxpr, list(operands[1:]), alive) for branch in params["branches"]]
        return Inner(programs, [])
    inner = params.get("jaxpr", params.get("call_jaxpr", params.get("fun_jaxpr")))
    if name in CALLS or name.startswith("custom_"):
        program = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        if isinstance(program, Jaxpr) and len(program.invars) == len(operands):
            return Inner([(program, list(operands), alive)], [])
    return None


def use_of(eqn: JaxprEqn, at: int, view: View) -> Use | None:
    """How an operation reads the kernel that its operand `at` is; None if it is no matrix product of any kind."""
    read: Mapping[str, Callable[..., Use | None]] = {
        "dot_general": _dot,
        "gather": _gather,
        "conv_general_dilated": _conv,
    }
    known = read.get(eqn.primitive.name)
    out: Any = eqn.outvars[0].aval
    return known(eqn.params, at, view) if known is not None and jnp.issubdtype(out.dtype, jnp.floating) else None


def _dot(params: Mapping[str, Any], at: int, view: View) -> Use:
    contracted, batch = params["dimension_numbers"]
    return Use("dot", view, tuple(contracted[at]), tuple(batch[at]))


def _gather(params: Mapping[str, Any], at: int, view: View) -> Use | None:
    numbers, shape = params["dimension_numbers"], view.shape
    looked = tuple(numbers.start_index_map)
    whole_rows = all(size == (1 if d in looked else shape[d]) for d, size in enumerate(params["slice_sizes"]))
    if at or len(looked) != 1 or tuple(numbers.collapsed_slice_dims) != looked or not whole_rows:
        return None
    return None if numbers.operand_batching_dims else Use("gather", view, looked)


def _conv(params: Mapping[str, Any], at: int, view: View) -> Use | None:
    if at != 1 or params["batch_group_count"] != 1 or params["feature_group_count"] != 1:
        return None
    out = params["dimension_numbers"].rhs_spec[0]
    return Use("conv", view, tuple(axis for axis in range(len(view.axes)) if axis != out))


def operations(uses: Sequence[Use]) -> Iterator[Use]:
    """The uses that are no marks."""
    return (use for use in uses if use.kind != "mark")


def program_of(
    run: Callable[..., Any], kernels: Sequence[Any], *more: Any
) -> tuple[ClosedJaxpr, Callable[[Sequence[Any]], Any]]:
    """The program of a function of kernels, and what makes the function's result of the program's outputs.

    Args:
        run: called with the list of kernels and with `more`; closes over all else. What of its result is no array, as
            text or a flag, is kept as it is.
        kernels: arrays, or their shapes and dtypes: the program's first inputs.
        *more: trees of the same.
    """
    kept: dict[str, Any] = {}

    def arrays(kernels: list, *more: Any) -> list:
        flat, kept["structure"] = jax.tree.flatten(run(kernels, *more))
        kept["whole"] = [None if _is_array(leaf) else leaf for leaf in flat]
        return [leaf for leaf in flat if _is_array(leaf)]

    closed = jax.make_jaxpr(arrays)(list(kernels), *more)

    def result(outputs: Sequence[Any]) -> Any:
        rest = iter(outputs)
        return jax.tree.unflatten(kept["structure"], [next(rest) if x is None else x for x in kept["whole"]])

    return closed, result


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")
