"""An NNX module of one's own, with layers of share_jax in it, as an `AdaptedModel`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from share_jax.adapted import SHARED, TASKS, Forward, arguments
from share_jax.bank.slots import TaskSlots, as_stack, slots_of
from share_jax.errors import InputError, TargetError, message
from share_jax.layers.targets import Target
from share_jax.nnx.module_function import ModuleFunction, function_of, trees_of, variables_by_path
from share_jax.nnx.variables import TaskLayer
from share_jax.ops.remat_policy import POLICIES, Remat
from share_jax.parameterizations.base import specs
from share_jax.typing import PRNGKey, Tree

PLACES = {"shared": "shared", "slot": "task"}
"""Of the trees that train, the owner of their leaves."""


@dataclass(frozen=True)
class OwnModule:
    """A module whose `__call__` takes `task_id` by name; its layers have their own leaves.

    Attributes:
        model: the module, without arrays.
        never: paths in {"shared": ..., "slot": ...} of what the layers' own methods never train.
    """

    model: ModuleFunction
    never: frozenset[str]
    method: None = None
    targets: tuple[Target, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Class of the module."""
        return self.model.name

    @property
    def kernels(self) -> Mapping[str, tuple[int, int]]:
        """None that are known."""
        return {}

    def init(self, key: PRNGKey, params: Tree, num_tasks: int) -> dict[str, Any]:
        """A module of one's own makes its own trees.

        Raises:
            InputError: always.
        """
        fix = "build the module with num_tasks, and take share_jax.nnx.variables_of(module)"
        raise InputError(message("init", got=self.name, expected="an adapted model", fix=fix))

    def slot(self, tasks: Tree, task_id: Any) -> TaskSlots:
        """The slot of one task, or the stack with an id for each example of the batch."""
        return slots_of(tasks, task_id)

    def forward(self, remat: Remat | None = None) -> Forward:
        """The module's output; the slot at hand is the only one of a stack.

        Raises:
            TargetError: if `remat` names blocks.
        """

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            slots = slot if isinstance(slot, TaskSlots) else TaskSlots(slot)
            stack, ids = slots.stack() if slots.batched else (as_stack(slots.leaves), jnp.int32(0))
            args, kwargs = arguments(inputs)
            variables = {**base, SHARED: shared, TASKS: stack}
            return self.model.apply(variables, *args, rngs=key, **kwargs, task_id=ids)

        if remat is None:
            return run
        if remat.blocks:
            got, fix = f"blocks {list(remat.blocks)}", "put the blocks under nnx.remat in the model"
            raise TargetError(message("remat", got=got, expected="a policy for the whole model", fix=fix))
        return jax.checkpoint(run, policy=POLICIES[remat.policy])

    def never_trained(self, base: Tree, trained: Tree, inputs: Any, key: PRNGKey) -> frozenset[str]:
        """Paths in {"shared": ..., "slot": ...} of what the layers' own methods never train."""
        return self.never

    def gathering(self, whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
        """Of no layer: which of its parameters are kernels is not known."""
        return nullcontext()


def as_adapted(model: nnx.Module) -> OwnModule:
    """The seam of `share_jax.adapted.SEAMS`."""
    never = set()
    for path, layer in nnx.iter_modules(model):
        if isinstance(layer, TaskLayer):
            for place, owner in PLACES.items():
                names = [name for name, leaf in specs(layer.method, owner).items() if leaf.trains == "never"]
                never.update("/".join(map(str, (place, *path, name))) for name in names)
    return OwnModule(function_of(model), frozenset(never))


def variables_of(model: nnx.Module) -> dict[str, Any]:
    """The trees {"params": ..., "shared": ..., "tasks": ..., "state": ...} of a module with layers of share_jax.

    They are what a Linen module's `init` returns: `Learner` takes the module with "params" and "state" as its base, and
    `Learner.start` takes "shared" and "tasks".

    Args:
        model: the module, which is not changed.

    Raises:
        InputError: if it is no NNX module.

    Example:
        >>> from share_jax.nnx.modules import SharedLoRALinear
        >>> sorted(variables_of(SharedLoRALinear(6, 4, num_tasks=3, rngs=nnx.Rngs(0))))
        ['params', 'shared', 'tasks']
    """
    if not isinstance(model, nnx.Module):
        got, fix = type(model).__name__, "pass the module itself"
        raise InputError(message("module", got=got, expected="an nnx.Module", fix=fix))
    return trees_of(variables_by_path(model))
