"""A batch of different tasks through a Linen model: all together where every layer's input begins with the batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from share_jax.adapted import SHARED, TASKS
from share_jax.bank.slots import TaskSlots
from share_jax.traced.batch_axis import Batch, mixed
from share_jax.traced.per_example import named_inputs
from share_jax.typing import Tree

Run = Callable[[Tree, TaskSlots, tuple, dict[str, Any]], Any]
"""(variables, slots, positional and named arguments) to the model's output."""


def apply_mixed(
    run: Run,
    variables: Tree,
    slots: TaskSlots,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    together: bool,
    unbatched: Sequence[str] = (),
) -> Any:
    """The model's output for a batch in which each example has a task of its own.

    Args:
        run: the adapted model.
        variables: all its collections.
        slots: batched, or with batched heads.
        args: the positional arguments.
        kwargs: the named ones.
        together: whether layers may take the slots of the whole batch.
        unbatched: inputs that every example shares whatever their shape, by name, or by place as "0".

    Raises:
        InputError: if there are not as many ids as examples, or the batch's axis is not found.
    """
    rngs, named = kwargs.get("rngs"), {name: value for name, value in kwargs.items() if name != "rngs"}
    fixed = {name: variables[name] for name in ("params", SHARED, TASKS) if name in variables}
    of_state = {name: tree for name, tree in sorted(variables.items()) if name not in fixed}
    inputs, input_tree = jax.tree.flatten((args, named))
    state, state_tree = jax.tree.flatten(of_state)
    dynamic = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in inputs]

    def call(slots: TaskSlots, arrays: list, keys: Any) -> Any:
        rest = iter(arrays)
        leaves = [next(rest) if is_array else leaf for is_array, leaf in zip(dynamic, inputs, strict=True)]
        own_args, own_named = jax.tree.unflatten(input_tree, leaves)
        collections = jax.tree.unflatten(state_tree, list(rest))
        streams = {} if keys is None else {"rngs": keys}
        return run({**fixed, **collections}, slots, own_args, {**own_named, **streams})

    of_slots = slots if slots.batched else slots.heads or slots
    size = int((of_slots.ids if of_slots.ids is not None else jax.tree.leaves(of_slots.leaves)[0]).shape[0])
    arrays = [leaf for leaf, is_array in zip(inputs, dynamic, strict=True) if is_array]
    named_so = named_inputs((dict(enumerate(args)), named), unbatched)
    shared = tuple(own for own, is_array in zip(named_so, dynamic, strict=True) if is_array)
    collections = tuple(name for name, tree in of_state.items() for _ in jax.tree.leaves(tree))
    return mixed(call if together else None, call, slots, Batch(arrays, state, size, shared, collections), rngs)
