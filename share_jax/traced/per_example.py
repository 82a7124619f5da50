"""A batch of different tasks: the function is mapped over its examples, each with its own slot, the base with all.

JAX follows the batch's axis itself, so it does not matter what a layer does with it. The base's products stay those of
the whole batch; per example there are only the adapters' factors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.errors import InputError, ShareError, first_line, message
from share_jax.layers.deltas import check_ids
from share_jax.traced.batch_axis import NOT_TAKEN
from share_jax.traced.example_axes import in_order
from share_jax.traced.places import LOST, Lies, State
from share_jax.typing import Array, PRNGKey

Call = Callable[[Any, tuple, dict[str, Any], PRNGKey | None], Any]
"""(slots, positional inputs, inputs by name, key) to an output."""


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a function's arguments is an array or stands for one."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def each_its_own(
    call: Call,
    shapes: Call,
    slots: Any,
    args: tuple,
    kwargs: dict[str, Any],
    key: PRNGKey | None,
    unbatched: Sequence[str] = (),
) -> Any:
    """The output of a batch whose examples have each their own slot.

    Args:
        call: of one example with a batch axis of length 1.
        shapes: the same without slots, only for the shapes of its output.
        slots: leaves (batch, ...).
        args: arrays (batch, ...); all others, and all that is no array, every example shares.
        kwargs: the same by name.
        key: of this step; each example folds its place into it.
        unbatched: inputs that every example shares whatever their shape, by name, or by place as "0"; "0/nodes" is a
            part of one.

    Raises:
        InputError: if the first array does not hold as many examples as there are slots, or if an output mixes
            examples by an operation that `axis_rules` knows to do so, as a mean over the batch does.
    """
    batch = jax.tree.leaves(slots)[0].shape[0]
    inputs = (dict(enumerate(args)), kwargs)
    leaves, structure = jax.tree.flatten(inputs)
    shared = named_inputs(inputs, unbatched)
    whole = [not is_array(leaf) or jnp.ndim(leaf) == 0 for leaf in leaves]
    free = [not own and not every for own, every in zip(whole, shared, strict=True)]
    first = next((leaf for leaf, own in zip(leaves, free, strict=True) if own), None)
    check_ids(batch, 0 if first is None else first.shape[0])
    moving = [own and leaf.shape[0] == batch for leaf, own in zip(leaves, free, strict=True)]

    def arguments(own: Sequence[Any]) -> tuple[tuple, dict[str, Any]]:
        values = iter(own)
        chosen = [next(values) if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)]
        by_place, by_name = jax.tree.unflatten(structure, chosen)
        return tuple(by_place.values()), by_name

    own = [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves]

    def whole_batch(own: list[Any]) -> Any:
        return shapes(None, *arguments(own), key)

    program, of_all = jax.make_jaxpr(whole_batch, return_shape=True)(own)
    try:
        of_one = jax.eval_shape(whole_batch, [leaf[:1] for leaf in own])
    except NOT_TAKEN as error:
        raise _mixing(f"one that does not take one example alone ({first_line(error)})") from error
    lying = in_order(program, [Lies(0)] * len(own), batch)
    leaves_of = zip(*map(jax.tree.leaves, (of_all, of_one)), lying, strict=True)
    axes = [_axis(all_, one, batch, lies) for all_, one, lies in leaves_of]

    def one(slots: Any, own: Sequence[Array], place: Array) -> list[Array]:
        folded = None if key is None else jax.random.fold_in(key, place)
        return jax.tree.leaves(call(slots, *arguments([leaf[None] for leaf in own]), folded))

    try:
        out = jax.vmap(one, out_axes=axes)(slots, own, jnp.arange(batch))
    except ShareError:
        raise
    except NOT_TAKEN as error:
        if "out_axes" in str(error):
            raise _mixing("an output without the batch's axis that depends on the examples") from error
        raise _mixing(f"one that does not take one example alone ({first_line(error)})") from error
    flat = [leaf if axis is None else leaf.reshape(-1, *leaf.shape[2:]) for leaf, axis in zip(out, axes, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(of_all), flat)


def named_inputs(inputs: tuple[dict[int, Any], dict[str, Any]], names: Sequence[str]) -> list[bool]:
    """Which leaves of a call's inputs, by place and by name, have one of the names, or are a part of one.

    >>> named_inputs(({0: {"x": 1, "y": 2}}, {"mask": 3}), ["0/y", "mask"])
    [False, True, True]
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(inputs)
    own = [jax.tree_util.keystr(path[1:], simple=True, separator="/") for path, _ in paths]
    return [any(each == name or each.startswith(f"{name}/") for name in names) for each in own]


def _axis(of_all: Any, of_one: Any, batch: int, lies: State) -> int | None:
    """Where a mapped output gets its axis of examples; None if all examples share it."""
    if lies == LOST and of_one.ndim and of_one.shape[0] > 1 and of_all.shape != of_one.shape:
        raise _mixing(f"{of_one.shape[0]} rows for each example, in an order that is not known")
    if of_all.ndim and of_all.shape[0] == batch * of_one.shape[0] and of_all.shape[1:] == of_one.shape[1:]:
        return 0
    if of_all.shape == of_one.shape:
        return None
    raise _mixing(f"an output of shape {of_all.shape} for all and {of_one.shape} for one example")


def _mixing(got: str) -> InputError:
    expected = "the batch as the first axis of every output"
    fix = "name inputs that all examples share in `unbatched` of adapt, or use one id for the batch"
    return InputError(message("model in a batch of different tasks", got=got, expected=expected, fix=fix))
