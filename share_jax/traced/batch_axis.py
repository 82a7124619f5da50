"""A batch of different tasks where a layer's first axis need not be the batch.

Which axis of an array is the batch cannot be read off its shape: a table of positions may be as long as the batch. So
the model is evaluated abstractly with one example more. What grows with it is the batch axis, of inputs, of state such
as a cache, and of outputs; a layer that does not grow would give examples each other's updates. Then the batch runs as
`jax.vmap` over its examples, with the task's leaves mapped and the base model's not: JAX keeps account of the axis.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from share_jax.bank.slots import TaskSlots
from share_jax.errors import InputError, first_line, message
from share_jax.layers.deltas import UnlikeBatchError
from share_jax.ops.mixed_batch import plain_products
from share_jax.ops.products import without_merging
from share_jax.traced.example_axes import followed, in_order
from share_jax.traced.places import Lies, State, grown_axes

NOT_TAKEN = (
    TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, NotImplementedError,
)  # fmt: skip
"""What JAX and models raise for shapes that they do not take."""

Call = Callable[[TaskSlots, list, Any], Any]
"""(slots, arrays, keys of random streams) to the model's output."""

MOST = 6
"""Inputs, up to this many, of which each is tried as one without a batch axis."""


@dataclass(frozen=True)
class Batch:
    """Arrays that a model takes, and the axis of each along which its examples may lie.

    Attributes:
        inputs: the arrays of the call, examples first where they have any.
        state: those of collections such as a cache, whose axis is found.
        size: examples.
        shared: which of the inputs all examples share, whatever their shape.
        collections: names of those of the state, array by array.
    """

    inputs: list
    state: list
    size: int
    shared: tuple[bool, ...]
    collections: tuple[str, ...] = ()

    @property
    def arrays(self) -> list:
        return [*self.inputs, *self.state]

    def options(self) -> Iterator[list[int | None]]:
        """Which axis of each array may be the batch, the likeliest first."""
        free = [at for at, shared in enumerate(self.shared) if not shared]
        own = [at for at in free if np.ndim(self.inputs[at]) and self.inputs[at].shape[0] == self.size]
        some = [[at for at in own if at != left_out] for left_out in own] if len(own) in range(2, MOST + 1) else []
        chosen = [own, *some, *([own[:1]] if len(own) > 2 else [])]
        fitting = [[axis for axis, n in enumerate(leaf.shape) if n == self.size] for leaf in self.state]
        most = max((len(axes) for axes in fitting), default=0)
        of_state = [[None] * len(fitting)]
        for k in range(most):  # what has fewer such axes may have the batch on its last, or none, as counts have
            last = [axes[min(k, len(axes) - 1)] if axes else None for axes in fitting]
            none = [axes[k] if k < len(axes) else None for axes in fitting]
            many = [None if np.ndim(leaf) == 1 else axis for leaf, axis in zip(self.state, last, strict=True)]
            of_state += [axes for axes in (last, none, many) if axes not in of_state]
        if len(names := dict.fromkeys(self.collections)) > 1:  # one of them may be as long as the batch by chance
            pairs = [(axes, left_out) for axes in of_state[1:] for left_out in names]
            of_state += [
                [None if name == left_out else axis for name, axis in zip(self.collections, axes, strict=True)]
                for axes, left_out in pairs
            ]
        for state in of_state:
            for taken in chosen:
                yield [0 if at in taken else None for at in range(len(self.inputs))] + state


def mixed(together: Call | None, alone: Call, slots: TaskSlots, batch: Batch, keys: Any) -> Any:
    """The output for a batch in which each example has a task of its own.

    Args:
        together: takes the slots of the whole batch, layer by layer, and raises `UnlikeBatchError` where a layer's
            input does not begin with the batch; None if no layer can.
        alone: takes one slot.
        slots: batched, or with batched heads.
        batch: the arrays.
        keys: of random streams.

    Raises:
        InputError: if there are not as many ids as examples, or no axis is found along which the model takes them.
    """
    options = list(batch.options())
    if not any(axis == 0 for axis in options[0][: len(batch.inputs)]):
        shapes = sorted({tuple(np.shape(leaf)) for leaf in batch.inputs})
        expected = f"one id per example of inputs of shapes {', '.join(map(str, shapes)) or 'none'}"
        fix = "pass an array whose first axis is the batch, or one id for the batch"
        raise InputError(message("task_id", got=f"{batch.size} ids", expected=expected, fix=fix))
    reasons: list[Exception] = []
    for more in (1, batch.size):
        for option in options:
            try:
                if together is not None:
                    _check_order(together, slots, batch, option, more, keys)
                    return together(slots, batch.arrays, keys)
            except UnlikeBatchError as error:
                reasons.append(error)
            except NOT_TAKEN as error:
                reasons.append(error)
                continue
            try:
                outputs = _output_axes(alone, slots, batch, option, more, keys)
            except NOT_TAKEN as error:
                reasons.append(error)
                continue
            try:
                return _each(alone, slots, batch, option, outputs, keys)
            except InputError:
                raise
            except NOT_TAKEN as error:  # of a model that does not take one example alone
                reasons.append(error)
    raise _no_axis(batch.size, reasons)


def _no_axis(size: int, reasons: list[Exception]) -> InputError:
    unlike = next((error for error in reasons if isinstance(error, UnlikeBatchError)), None)
    reason = first_line(unlike or reasons[0])
    got = f"{size} ids for a model whose batch axis is not found ({reason})"
    expected, fix = "a model that also takes one example more", "pass one id for the whole batch"
    return InputError(message("task_id", got=got, expected=expected, fix=fix))


def _grown(leaf: Any, axis: int | None, more: int) -> Any:
    shape = list(np.shape(leaf))
    if axis is not None:
        shape[axis] += more
    return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)


def _grown_slots(slots: TaskSlots, more: int) -> TaskSlots:
    ids = None if slots.ids is None else _grown(slots.ids, 0, more)
    axis = 0 if slots.per_example else None
    leaves = jax.tree.map(lambda leaf: _grown(leaf, axis, more), slots.leaves)
    heads = None if slots.heads is None else _grown_slots(slots.heads, more)
    return replace(slots, leaves=leaves, ids=ids, heads=heads)


def _with_more(
    call: Call, slots: TaskSlots, batch: Batch, option: list[int | None], more: int, keys: Any
) -> tuple[ClosedJaxpr, Any, list[State]]:
    """A call with more examples: its program, its outputs' shapes, and where the examples lie in its inputs."""
    grown = [_grown(leaf, axis, more) for leaf, axis in zip(batch.arrays, option, strict=True)]
    before, after = (slots, batch.arrays, keys), (_grown_slots(slots, more), grown, keys)
    program, shapes = jax.make_jaxpr(call, return_shape=True)(*after)
    return program, shapes, grown_axes(before, after)


def _check_order(call: Call, slots: TaskSlots, batch: Batch, option: list[int | None], more: int, keys: Any) -> None:
    """Traces a call with more examples.

    Raises:
        UnlikeBatchError: if a layer's input does not begin with them, in their order.
    """
    with plain_products():
        program, _, lying = _with_more(call, slots, batch, option, more, keys)
    of_layers = followed(program, lying, batch.size + more).layers
    if any(lies != Lies(0) for lies in of_layers):
        got, expected = "a layer whose input is not known to begin with the batch", "examples that keep their places"
        raise UnlikeBatchError(message("task_id", got=got, expected=expected, fix="pass one id for the whole batch"))


def _first(slots: TaskSlots) -> TaskSlots:
    """The first example's slot, as one task's for the whole batch."""
    heads = None if slots.heads is None else _first(slots.heads)
    at_hand = slots.at_hand()
    leaves = jax.tree.map(lambda leaf: leaf[0], at_hand.leaves) if slots.batched else slots.leaves
    return replace(at_hand, leaves=leaves, per_example=False, heads=heads)


def _output_axes(
    alone: Call, slots: TaskSlots, batch: Batch, option: list[int | None], more: int, keys: Any
) -> list[int | None]:
    """The batch axis of every output; None of one that does not grow with the batch.

    Raises:
        ValueError: if an output grows in another way.
        InputError: if one has the examples in another order.
    """

    def call(slots: TaskSlots, arrays: list, keys: Any) -> Any:
        return jax.tree.leaves(alone(_first(slots), arrays, keys))

    small = jax.eval_shape(call, slots, batch.arrays, keys)
    program, large, lying = _with_more(call, slots, batch, option, more, keys)
    in_order(program, lying, batch.size + more)
    found: list[int | None] = []
    for one, other in zip(small, large, strict=True):
        axes = [at for at, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b]
        if len(axes) > 1 or any((one.shape[at], other.shape[at]) != (batch.size, batch.size + more) for at in axes):
            raise ValueError(f"an output of shape {one.shape} becomes {other.shape} with {more} examples more")
        found.append(axes[0] if axes else None)
    return found


def _each(
    alone: Call, slots: TaskSlots, batch: Batch, option: list[int | None], outputs: list[int | None], keys: Any
) -> Any:
    """The model on every example by itself, with its own slot.

    Raises:
        InputError: if an output without a batch axis depends on the example.
    """
    kept: list[Any] = []
    own = slots.at_hand()
    heads = None if own.heads is None else own.heads.at_hand()

    def one(leaves: Any, of_heads: Any, arrays: list, keys: Any) -> list:
        other = None if heads is None else replace(heads, leaves=of_heads, per_example=False)
        slot = replace(own, leaves=leaves, per_example=False, heads=other)
        pairs = zip(arrays, option, strict=True)
        out = alone(slot, [x if axis is None else jnp.expand_dims(x, axis) for x, axis in pairs], keys)
        found, structure = jax.tree.flatten(out)
        kept.append(structure)
        return [x if axis is None else jnp.squeeze(x, axis) for x, axis in zip(found, outputs, strict=True)]

    in_axes = (0 if own.per_example else None, 0 if heads is not None and heads.per_example else None, list(option), 0)
    split = jax.tree.map(lambda key: jax.random.split(key, batch.size), keys)
    run = jax.vmap(one, in_axes=in_axes, out_axes=list(outputs), axis_size=batch.size)
    try:
        with without_merging():
            out = run(own.leaves, None if heads is None else heads.leaves, batch.arrays, split)
    except ValueError as raised:
        if "out_axes" not in str(raised):
            raise
        what, fix = "output of a batch of different tasks", "pass one id for the whole batch"
        got, expected = "a value without a batch axis that examples change", "outputs of each example"
        raise InputError(message(what, got=got, expected=expected, fix=fix)) from raised
    return jax.tree.unflatten(kept[-1], out)
