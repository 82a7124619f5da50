"""What an adapted model, or a module of one's own, does with its trees, whatever module system runs it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import jax.numpy as jnp

from share_jax.adapted import SHARED, TASKS
from share_jax.bank.accounting import ParameterCounts
from share_jax.bank.slots import TaskSlots, as_slots, as_stack, as_task_id, capacity, gather, slots_of
from share_jax.errors import InputError, TargetError, message
from share_jax.layers.effective_params import effective_params
from share_jax.layers.fresh_trees import counts_of, fresh_trees
from share_jax.layers.targets import Target, table
from share_jax.parameterizations.base import Parameterization, specs
from share_jax.trees import flat, merged, nested
from share_jax.typing import PRNGKey, TaskId, Tree

SPACES = ("activation", "parameter")


def check_space(space: str) -> None:
    """Refuses what is neither of `SPACES`.

    Raises:
        TargetError: showing it.
    """
    if space not in SPACES:
        raise TargetError(message("space", got=repr(space), expected=" or ".join(SPACES), fix="pass one of them"))


class AdaptedTrees:
    """The part of an `AdaptedModel` that reads its targets and trees alone.

    Attributes:
        method: the parameterisation of each kernel's update.
        targets: the adapted kernels, in path order.
        heads: paths of the parameters that each task owns whole, such as a classifier's kernel and bias.
        space: "activation" or "parameter".
    """

    method: Parameterization
    targets: tuple[Target, ...]
    heads: tuple[str, ...]
    space: str

    def __str__(self) -> str:
        heads = f"\nowned by each task: {', '.join(self.heads)}" if self.heads else ""
        return f"{self.method} in {self.space} space on {len(self.targets)} kernels:\n{table(self.targets)}{heads}"

    def init(self, key: PRNGKey, params: Tree, num_tasks: int) -> dict[str, Any]:
        """Fresh `shared` and `tasks` trees, with which every task's model equals the base model bitwise or to rounding.

        Args:
            key: typed PRNG key.
            params: the base model's parameters; each task's heads start as copies of theirs.
            num_tasks: slots, T.

        Returns:
            {"shared": tree, "tasks": tree of leaves (T, ...)}

        Raises:
            InputError: if `num_tasks` is below 1, or `params` is not the tree that was adapted.
        """
        shared, tasks = fresh_trees(self.method, self.targets, self.heads, key, params, num_tasks)
        return {SHARED: shared, TASKS: tasks}

    def slot(self, tasks: Tree, task_id: TaskId) -> TaskSlots:
        """The slot of one task, or the stack with one task per example of the batch.

        Args:
            tasks: the `tasks` tree, leaves (T, ...).
            task_id: an integer scalar, or one id per example (batch,).

        Raises:
            TaskError: if a concrete id is not a slot.
            InputError: if ids per example are given in parameter space, which has one kernel for the batch.
        """
        slots = slots_of(dict(tasks), task_id)
        if slots.ids is not None and self.space == "parameter":
            raise InputError(
                message(
                    "task_id in parameter space",
                    got=f"{slots.ids.shape[0]} ids",
                    expected="one id for the whole batch",
                    fix="adapt with space='activation' for batches of different tasks",
                )
            )
        return slots

    def effective_params(self, variables: Tree, task_id: int) -> dict[str, Any]:
        """The parameters of an ordinary model with this task's output: base + delta, and the task's heads.

        Raises:
            TaskError: if the id is not a slot.
        """
        slot = gather(variables[TASKS], as_task_id(task_id, capacity(variables[TASKS])))
        own = flat(slot)
        params = merged(variables["params"], nested({path: own[path] for path in self.heads}))
        return effective_params(self.method, self.targets, params, variables[SHARED], slot)

    def counts(self, params: Tree, variables: Tree, tasks: int, *, separate_rank: int | None = None) -> ParameterCounts:
        """Parameters from the real trees, against `tasks` separate LoRAs on the same kernels.

        Args:
            params: the base model's parameters.
            variables: the trees of `init`.
            tasks: how many of the slots are counted.
            separate_rank: rank of the separate LoRAs; the method's own rank, or pseudo-rank, by default.
        """
        rank = separate_rank if separate_rank is not None else self.method.rank
        return counts_of(self.targets, self.heads, params, (variables[SHARED], variables[TASKS]), tasks, rank)


class OwnTrees(ABC):
    """The part of an `AdaptedModel` that a module of one's own has, whose layers hold their own leaves.

    Attributes:
        method: None: each layer has its own.
        targets: none that are known.
        heads: none that are known.
        built: how such a module's trees are made, for a message.
    """

    method: None = None
    targets: tuple[Target, ...] = ()
    heads: tuple[str, ...] = ()
    built: ClassVar[str]

    @property
    @abstractmethod
    def name(self) -> str:
        """Class of the module."""

    @property
    def kernels(self) -> Mapping[str, tuple[int, int]]:
        """None that are known."""
        return {}

    def init(self, key: PRNGKey, params: Tree, num_tasks: int) -> dict[str, Any]:
        """A module of one's own makes its own trees.

        Raises:
            InputError: always.
        """
        raise InputError(message("init", got=self.name, expected="an adapted model", fix=self.built))

    def slot(self, tasks: Tree, task_id: Any) -> TaskSlots:
        """The slot of one task, or the stack with an id for each example of the batch."""
        return slots_of(tasks, task_id)

    def gathering(self, whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
        """Of no layer: which of its parameters are kernels is not known."""
        return nullcontext()


def own_stack(slot: Any) -> tuple[Tree, Any]:
    """The stack that layers of one's own read, and the ids in it; a slot alone is the only one of its stack."""
    slots = as_slots(slot)
    return slots.stack() if slots.batched else (as_stack(slots.leaves), jnp.int32(0))


def never_leaves(method: Parameterization, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Keys in {"shared": ..., "slot": ...} of what the method of a layer at a path never trains."""
    for place, owner in (("shared", "shared"), ("slot", "task")):
        for name, leaf in specs(method, owner).items():
            if leaf.trains == "never":
                yield (place, *path, name)
