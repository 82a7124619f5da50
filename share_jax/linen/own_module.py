"""A Linen module of one's own, with layers of share_jax in it, as an `AdaptedModel`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax

from share_jax.adapted import SHARED, TASKS, Forward, arguments
from share_jax.adapted_trees import OwnTrees, never_leaves, own_stack
from share_jax.linen.remat import rematerialised
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.base import Parameterization
from share_jax.trees import path_of
from share_jax.typing import PRNGKey, Tree


@dataclass(frozen=True)
class OwnModule(OwnTrees):
    """A module whose `__call__` takes `task_id` by name; its layers declare their own leaves.

    Attributes:
        model: the module.
    """

    model: nn.Module
    built: ClassVar[str] = "build the module with num_tasks, and call its init"

    @property
    def name(self) -> str:
        return type(self.model).__name__

    def forward(self, remat: Remat | None = None) -> Forward:
        """The module's output; the slot at hand is the only one of a stack."""

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            stack, ids = own_stack(slot)
            args, kwargs = arguments(inputs, key)
            return self.model.apply({**base, SHARED: shared, TASKS: stack}, *args, **kwargs, task_id=ids)

        return rematerialised(run, remat)

    def never_trained(self, base: Tree, trained: Tree, inputs: Any, key: PRNGKey) -> frozenset[str]:
        """Paths in {"shared": ..., "slot": ...} of what the layers' own methods never train.

        The layers are met by an abstract forward pass, as a compact module makes its layers only there.
        """
        found: set[str] = set()

        def look(run: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            method = getattr(context.module, "method", None)
            if isinstance(method, Parameterization):
                found.update(path_of(keys) for keys in never_leaves(method, context.module.path))
            return run(*args, **kwargs)

        with nn.intercept_methods(look):
            jax.eval_shape(lambda: self.forward()(base, trained["shared"], trained["slot"], inputs, key))
        return frozenset(found)


def as_adapted(model: nn.Module) -> OwnModule:
    """The seam of `share_jax.adapted.SEAMS`."""
    return OwnModule(model)
