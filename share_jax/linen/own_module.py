"""A Linen module of one's own, with layers of share_jax in it, as an `AdaptedModel`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from share_jax.adapted import SHARED, TASKS, Forward, arguments
from share_jax.bank.slots import TaskSlots, as_stack, slots_of
from share_jax.errors import InputError, message
from share_jax.layers.targets import Target
from share_jax.linen.remat import rematerialised
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.base import Parameterization, specs
from share_jax.trees import path_of
from share_jax.typing import PRNGKey, Tree

PLACES = {"shared": "shared", "slot": "task"}
"""Of the trees that train, the owner of their leaves."""


@dataclass(frozen=True)
class OwnModule:
    """A module whose `__call__` takes `task_id` by name; its layers declare their own leaves.

    Attributes:
        model: the module.
    """

    model: nn.Module
    method: None = None
    targets: tuple[Target, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return type(self.model).__name__

    @property
    def kernels(self) -> Mapping[str, tuple[int, int]]:
        return {}

    def init(self, key: PRNGKey, params: Tree, num_tasks: int) -> dict[str, Any]:
        """A module of one's own makes its own trees.

        Raises:
            InputError: always.
        """
        fix = "build the module with num_tasks, and call its init"
        raise InputError(message("init", got=self.name, expected="an adapted model", fix=fix))

    def slot(self, tasks: Tree, task_id: Any) -> TaskSlots:
        """The slot of one task, or the stack with an id for each example of the batch."""
        return slots_of(tasks, task_id)

    def forward(self, remat: Remat | None = None) -> Forward:
        """The module's output; the slot at hand is the only one of a stack."""

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            slots = slot if isinstance(slot, TaskSlots) else TaskSlots(slot)
            stack, ids = slots.stack() if slots.batched else (as_stack(slots.leaves), jnp.int32(0))
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
                for place, owner in PLACES.items():
                    never = [name for name, leaf in specs(method, owner).items() if leaf.trains == "never"]
                    found.update(path_of((place, *context.module.path, name)) for name in never)
            return run(*args, **kwargs)

        with nn.intercept_methods(look):
            jax.eval_shape(lambda: self.forward()(base, trained["shared"], trained["slot"], inputs, key))
        return frozenset(found)

    def gathering(self, whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
        """Of no layer: which of its parameters are kernels is not known."""
        return nullcontext()


def as_adapted(model: nn.Module) -> OwnModule:
    """The seam of `share_jax.adapted.SEAMS`."""
    return OwnModule(model)
