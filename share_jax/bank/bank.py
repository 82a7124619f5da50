"""What has been learnt so far: the shared tree, the stack of task slots, and whose slot is whose."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.annotations import Int
from share_jax.bank.slots import append, as_task_id, capacity, check_slot, doubled, read_slot, write_slot
from share_jax.errors import InputError, TaskError, message
from share_jax.typing import Array, Tree


@dataclass(frozen=True)
class TaskBank:
    """The learnt tasks. A record of plain trees: every transition returns a new one.

    Attributes:
        shared: what all tasks share.
        tasks: stack of slots, leaves (capacity, ...); slots past the last name are fresh.
        names: the learnt tasks in order; the slot of names[i] is i.

    Example:
        >>> bank = TaskBank({}, {"lora_b": jnp.zeros((4, 2, 3))}, ("cola", "rte"))
        >>> bank.capacity, bank.index("rte"), bank.ids(["rte", "cola"])
        (4, 1, Array([1, 0], dtype=int32))
        >>> bank.index("rta")
        Traceback (most recent call last):
        share_jax.errors.TaskError: task name: got 'rta', expected one of 2 learnt tasks; near matches: rte
    """

    shared: Tree
    tasks: Tree
    names: tuple[str, ...] = ()

    @property
    def capacity(self) -> int:
        """Slots in the stack, learnt or not."""
        return capacity(self.tasks)

    def index(self, name: str) -> int:
        """The slot of a learnt task.

        Raises:
            TaskError: if no task has this name; the message lists near matches.
        """
        if name not in self.names:
            names = [str(each) for each in self.names]
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.3) or names[:3]
            raise TaskError(
                message(
                    "task name",
                    got=repr(name),
                    expected=f"one of {len(self.names)} learnt tasks",
                    fix=f"near matches: {', '.join(near)}" if near else "learn a task first",
                )
            )
        return self.names.index(name)

    def ids(self, tasks: str | int | np.integer | Sequence[str | int] | np.ndarray | Array) -> Int[Array, "..."]:
        """Ids of learnt tasks, one per example: what a compiled function that serves this bank may be given.

        One name or id gives one id, which stands for the whole batch.

        Within `jit` an id cannot be refused. An id past the stack gives NaN. An id of an unlearnt slot gives a fresh
        slot's output. So ids are checked here, before they go in.

        Args:
            tasks: (batch,) names or ids, such as those that `bank.router.route` chose; or one of them.

        Raises:
            TaskError: if a name or id is not that of a learnt task.
            InputError: if these are not names or whole numbers, or there are none.
        """
        if isinstance(tasks, str):
            return as_task_id(self.index(tasks), len(self.names))
        if isinstance(tasks, int | np.integer) or getattr(tasks, "ndim", None) == 0:
            return as_task_id(np.asarray(tasks), len(self.names))
        if not hasattr(tasks, "__iter__"):
            got, expected = type(tasks).__name__, "a learnt task's name or id, or one per example"
            fix = "pass the name that the task was learnt by"
            raise InputError(message("tasks", got=got, expected=expected, fix=fix))
        array = isinstance(tasks, np.ndarray | Array) and np.issubdtype(tasks.dtype, np.integer)
        whole = tasks if array else [self.index(each) if isinstance(each, str) else each for each in tasks]
        if not len(whole):
            raise InputError(message("tasks", got="none", expected="one per example", fix="pass a name per example"))
        return as_task_id(np.asarray(whole), len(self.names))


def check_new_name(bank: TaskBank, name: str) -> None:
    """Refuses what is no text, an empty name, and one that is taken.

    Raises:
        TaskError: naming it.
    """
    if not isinstance(name, str):
        got, fix = f"{type(name).__name__} {name!r}", "pass a name as text; numbers are the ids of learnt tasks"
        raise TaskError(message("new task name", got=got, expected="a str", fix=fix))
    if not name or name in bank.names:
        raise TaskError(
            message("new task name", got=repr(name), expected="a name that no task has", fix="choose another name")
        )


def with_room(bank: TaskBank, fresh: Callable[[int], Tree], needed: int) -> TaskBank:
    """The bank with a stack of at least `needed` slots, grown by doubling; learnt slots keep their bits.

    Args:
        bank: the bank.
        fresh: makes a stack of that many fresh slots.
        needed: slots that are wanted.
    """
    have = bank.capacity
    size = doubled(have, needed)
    return bank if size == have else replace(bank, tasks=append(bank.tasks, fresh(size - have)))


def next_slot(bank: TaskBank) -> Any:
    """A copy of the fresh slot that the next task will train."""
    return read_slot(bank.tasks, len(bank.names))


def with_task(bank: TaskBank, name: str, shared: Tree, slot: Any) -> TaskBank:
    """The bank after a task: its slot put in place and its name added.

    Raises:
        TaskError: if the name is taken, or the stack is full.
        InputError: if the slot is not of the stack's structure.
    """
    check_new_name(bank, name)
    return TaskBank(shared, write_slot(bank.tasks, len(bank.names), slot), (*bank.names, name))


def with_tasks(bank: TaskBank, shared: Tree, slots: Mapping[str, Tree]) -> TaskBank:
    """The bank with several tasks that were learnt elsewhere; its stack grows if they need more slots.

    Args:
        bank: the bank.
        shared: what all tasks share from now on.
        slots: each new task's slot, leaves without the task axis, in the stack's structure.

    Raises:
        TaskError: if a name is taken.
        InputError: if a slot is not of the stack's structure.
    """
    for name, slot in slots.items():
        check_new_name(bank, name)
        check_slot(bank.tasks, slot)
    learnt, end = len(bank.names), len(bank.names) + len(slots)

    def joined(own: Any, *new: Any) -> Array:  # in NumPy, which compiles nothing for another number of tasks
        own, added = np.asarray(own), np.stack([np.asarray(leaf) for leaf in new])
        return jnp.asarray(np.concatenate([own[:learnt], added.astype(own.dtype), own[end:]]))

    tasks = jax.tree.map(joined, bank.tasks, *slots.values()) if slots else bank.tasks
    return TaskBank(shared, tasks, (*bank.names, *slots))
