"""The task axis: every leaf of the `tasks` tree is stacked along a leading axis of slots, one per task.

Training lifts one slot out of the stack, works on it alone and puts it back, so that nothing it does can reach another
task and its cost does not depend on how many tasks there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from share_jax.annotations import Int
from share_jax.errors import InputError, TaskError, message
from share_jax.typing import Array, Tree


def capacity(tasks: Tree) -> int:
    """Slots in the stack, T.

    Raises:
        InputError: if the tree has no leaves or its leaves disagree.
    """
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(tasks)}
    if len(sizes) != 1:
        raise InputError(
            message(
                "task axis of the `tasks` tree",
                got=f"leading sizes {sorted(sizes)}",
                expected="one size for every leaf",
                fix="stack each leaf as (T, ...)",
            )
        )
    return sizes.pop()


def as_task_id(task_id: int | np.integer | Sequence[int] | np.ndarray | jax.Array, num_tasks: int) -> Int[Array, "..."]:
    """The task id as int32, a scalar or one id per example, checked against the number of slots.

    A traced id cannot be checked here: check it outside with `TaskBank.ids`. When it is out of range `gather` fills its
    leaves with NaN, so that it cannot pass for another task, and `jax.experimental.checkify` with `index_checks` or
    `nan_checks` makes an error of that.

    Args:
        task_id: a whole number, or whole numbers of shape (batch,); concrete or traced.
        num_tasks: slots in the stack.

    Raises:
        InputError: if the ids are not whole numbers, or have more than one axis.
        TaskError: if a concrete id is below 0 or not below `num_tasks`.
    """
    if not isinstance(task_id, Tracer):
        concrete = np.asarray(task_id)
        if not np.issubdtype(concrete.dtype, np.integer):
            raise InputError(
                message(
                    "task_id",
                    got=f"dtype {concrete.dtype}",
                    expected="a whole number, or one per example",
                    fix="look the task's id up by its name",
                )
            )
        outside = concrete[(concrete < 0) | (concrete >= num_tasks)]
        if outside.size:
            raise TaskError(
                message(
                    "task_id",
                    got=int(outside.flat[0]),
                    expected=f"0 to {num_tasks - 1}" if num_tasks else "no id, as there are no tasks",
                    fix="use a task that has been learnt, or grow the stack first",
                )
            )
    ids = jnp.asarray(task_id)
    if ids.ndim > 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(
            message(
                "task_id",
                got=f"{ids.dtype} of shape {ids.shape}",
                expected="an integer scalar or one id per example",
                fix="pass shape () or (batch,)",
            )
        )
    return ids.astype(jnp.int32)


def gather(tasks: Any, task_id: Int[Array, "..."]) -> Any:
    """The slot of one task, or a batched slot with one task per example.

    Args:
        tasks: tree of leaves (T, ...).
        task_id: int32 of shape () or (batch,). An id out of range gives leaves of NaN.

    Returns:
        The same tree with leaves (...) or (batch, ...).

    Example:
        >>> stack = {"scale": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])}
        >>> gather(stack, jnp.array([2, 7]))["scale"]
        Array([[ 4.,  5.],
               [nan, nan]], dtype=float32)
    """

    def rows(leaf: Any) -> Array:
        # Plain indexing would clamp an id that is too high and count one below 0 from the end.
        return jnp.asarray(leaf).at[task_id].get(mode="fill", wrap_negative_indices=False)

    return jax.tree.map(rows, tasks)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TaskSlots:
    """Leaves of tasks and which task each example takes: said once, and passed on unread to the layer.

    Attributes:
        leaves: one task's leaves; the stack of all tasks where there are `ids`; one slot per example if `per_example`.
        ids: int32 (batch,), the slot in the stack that each example takes; None for a stack of none.
        per_example: whether the leaves have been gathered, (batch, ...).
        heads: of the heads, where they are chosen apart: one adapter for the batch, and each example's own head.
        method: the parameterisation whose leaves these are, where a layer reads them. It is a part of the structure:
            what JAX compiles for one method never runs for another, with another alpha, say.

    Example:
        >>> stack = {"scale": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])}
        >>> slots = TaskSlots(stack, ids=jnp.array([2, 0]))
        >>> slots.batched, slots.at_hand().leaves["scale"]
        (True, Array([[4., 5.],
               [0., 1.]], dtype=float32))
    """

    leaves: Any
    ids: Any = None  # int32 (batch,); trees of this structure may hold something else, such as axes
    heads: "TaskSlots | None" = None
    per_example: bool = field(default=False, metadata={"static": True})
    method: Any = field(default=None, metadata={"static": True})

    @property
    def batched(self) -> bool:
        """Whether each example takes a slot of its own."""
        return self.per_example or self.ids is not None

    def at_hand(self) -> "TaskSlots":
        """The same without a stack: what `ids` choose is gathered."""
        if self.ids is None:
            return self
        return replace(self, leaves=gather(self.leaves, self.ids), ids=None, per_example=True)

    def stack(self) -> tuple[Any, Array]:
        """A stack and each example's slot in it, of batched slots; nothing is gathered."""
        if self.ids is not None:
            return self.leaves, self.ids
        return self.leaves, jnp.arange(jax.tree.leaves(self.leaves)[0].shape[0])


def as_slots(slot: Any) -> TaskSlots:
    """One task's leaves as `TaskSlots`; what says already how it is read stays as it is."""
    return slot if isinstance(slot, TaskSlots) else TaskSlots(slot)


def slots_of(tasks: Any, task_id: Any) -> TaskSlots:
    """The slot of one task, lifted once, or the stack with an id for each example.

    Args:
        tasks: tree of leaves (T, ...).
        task_id: an integer scalar, or one id per example (batch,); concrete or traced.

    Raises:
        TaskError: if a concrete id is not a slot.
        InputError: if the ids are not whole numbers, or the tree is no stack.
    """
    ids = as_task_id(task_id, capacity(tasks))
    return TaskSlots(tasks, ids) if ids.ndim else TaskSlots(gather(tasks, ids))


def read_slot(tasks: Any, index: int) -> Any:
    """A copy of one task's slot, leaves (...). The copy may be donated without harm to the stack.

    Args:
        tasks: the stack, leaves (T, ...).
        index: the task's slot, from 0.

    Raises:
        TaskError: if the index is not a slot of the stack.

    Example:
        >>> stack = {"scale": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])}
        >>> read_slot(stack, 1)
        {'scale': Array([2., 3.], dtype=float32)}
    """
    return _read(tasks, as_task_id(index, capacity(tasks)))


@jax.jit
def _read(tasks: Any, index: Int[Array, ""]) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tasks)


def as_stack(slot: Any) -> Any:
    """One slot as a stack of a single task, leaves (1, ...): what a module sees while a task is learnt."""
    return jax.tree.map(lambda leaf: leaf[None], slot)


def write_slot(tasks: Any, index: int, slot: Any) -> Any:
    """The stack with one slot replaced; every other slot keeps its bits.

    Args:
        tasks: the stack, leaves (T, ...).
        index: the task's slot, from 0.
        slot: its new leaves (...), in the stack's structure.

    Raises:
        TaskError: if the index is not a slot of the stack.
        InputError: if the slot's tree or shapes are not those of the stack.

    Example:
        >>> stack = {"scale": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])}
        >>> write_slot(stack, 1, {"scale": jnp.array([8.0, 9.0])})["scale"]
        Array([[0., 1.],
               [8., 9.],
               [4., 5.]], dtype=float32)
    """
    where = as_task_id(index, capacity(tasks))
    check_slot(tasks, slot)
    return _write(tasks, where, slot)


def check_slot(tasks: Any, slot: Any) -> None:
    """Refuses a slot that is none of the stack.

    Raises:
        InputError: if its tree or shapes are not those of the stack.
    """
    want = jax.tree.map(lambda leaf: tuple(leaf.shape[1:]), tasks)
    got = jax.tree.map(lambda leaf: tuple(leaf.shape), slot)
    if want != got:
        raise InputError(message("slot", got=got, expected=want, fix="read the slot from the same stack"))


@jax.jit
def _write(tasks: Any, index: Int[Array, ""], slot: Any) -> Any:
    return jax.tree.map(lambda leaf, new: leaf.at[index].set(new), tasks, slot)


def doubled(size: int, needed: int) -> int:
    """The smallest doubling of `size` that holds `needed` tasks, so that growth is rare.

    >>> doubled(4, 5), doubled(4, 4), doubled(1, 10)
    (8, 4, 16)
    """
    size = max(size, 1)
    while size < needed:
        size *= 2
    return size


def append(tasks: Any, more: Any) -> Any:
    """Two stacks along the task axis, the first one's slots first."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), tasks, more)
