"""An NNX module of one's own, with layers of share_jax in it, as an `AdaptedModel`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from flax import nnx

from share_jax.adapted import SHARED, TASKS, Forward, arguments
from share_jax.adapted_trees import OwnTrees, never_leaves, own_stack
from share_jax.errors import InputError, TargetError, message
from share_jax.nnx.module_function import ModuleFunction, function_of, trees_of, variables_by_path
from share_jax.nnx.variables import TaskLayer
from share_jax.ops.remat_policy import POLICIES, Remat
from share_jax.trees import text_of
from share_jax.typing import PRNGKey, Tree


@dataclass(frozen=True)
class OwnModule(OwnTrees):
    """A module whose `__call__` takes `task_id` by name; its layers have their own leaves.

    Attributes:
        model: the module, without arrays.
        never: paths in {"shared": ..., "slot": ...} of what the layers' own methods never train.
    """

    model: ModuleFunction
    never: frozenset[str]
    built: ClassVar[str] = "build the module with num_tasks, and take share_jax.nnx.variables_of(module)"

    @property
    def name(self) -> str:
        """Class of the module."""
        return self.model.name

    @property
    def random_state(self) -> tuple[str, ...]:
        """Paths in the collection "state" of what a saved bank does not ask for again."""
        return self.model.random_state

    def forward(self, remat: Remat | None = None) -> Forward:
        """The module's output; the slot at hand is the only one of a stack.

        Raises:
            TargetError: if `remat` names blocks.
        """

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            stack, ids = own_stack(slot)
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


def as_adapted(model: nnx.Module) -> OwnModule:
    """The seam of `share_jax.adapted.SEAMS`."""
    never = set()
    for path, layer in nnx.iter_modules(model):
        if isinstance(layer, TaskLayer):
            never.update(text_of(keys) for keys in never_leaves(layer.method, path))
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
