"""The protocol of an adapted model: all that training, sharding and checkpoints know of one, whatever runs it.

A *seam* implements it for a module system: `share_jax.linen` for Flax Linen. What is above sees trees and a `Forward`.
"""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from share_jax.bank.slots import TaskSlots
from share_jax.errors import InputError, entries, message
from share_jax.layers.targets import Target
from share_jax.model_inputs import inputs_of, streams
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.base import Parameterization
from share_jax.typing import PRNGKey, Tree

SHARED = "shared"
TASKS = "tasks"
"""The trees beside "params": what all tasks share, and the stack of what each task owns."""

Forward = Callable[[Tree, Tree, Any, Any, PRNGKey | None], Any]
"""(base variables, shared, slot or `TaskSlots`, inputs, key of this step's dropout or None) to the model's output."""

SEAMS = {
    "flax.linen.module.Module": "share_jax.linen.own_module",
    "flax.nnx.module.Module": "share_jax.nnx.own_module",
}
"""For a module system's root class the module whose `as_adapted` takes a module of one's own."""


@runtime_checkable
class AdaptedModel(Protocol):
    """A model with the update and the heads of tasks; it holds no arrays."""

    @property
    def name(self) -> str:
        """Class of the model, for a checkpoint."""
        ...

    @property
    def method(self) -> Parameterization | None:
        """The parameterisation; None for a module of one's own, whose layers have each their own, and whose stack of
        slots is as long as it was built.
        """
        ...

    @property
    def targets(self) -> tuple[Target, ...]:
        """The adapted kernels."""
        ...

    @property
    def heads(self) -> tuple[str, ...]:
        """Paths of the parameters that each task owns whole."""
        ...

    @property
    def kernels(self) -> Mapping[str, tuple[int, int]]:
        """Of every kernel of a plain layer by path: its axes within one layer, and how many of them are inputs."""
        ...

    def init(self, key: PRNGKey, params: Tree, num_tasks: int) -> dict[str, Any]:
        """Fresh {"shared": tree, "tasks": tree of leaves (T, ...)}."""
        ...

    def slot(self, tasks: Tree, task_id: Any) -> TaskSlots:
        """The slot of one task, or the stack with an id for each example of a batch."""
        ...

    def forward(self, remat: Remat | None = None) -> Forward:
        """The model's output for slots at hand, less memory between the passes where `remat` says so."""
        ...

    def gathering(self, whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
        """Within it plain layers run on `whole(path, leaf)` of each of their parameters."""
        ...


def as_adapted(model: Any) -> AdaptedModel:
    """The model itself where it is an adapted one, or what its module system's seam makes of a module of one's own.

    Raises:
        InputError: if it is neither.
    """
    if isinstance(model, AdaptedModel):
        return model
    for root in type(model).__mro__:
        if (seam := SEAMS.get(f"{root.__module__}.{root.__qualname__}")) is not None:
            return importlib.import_module(seam).as_adapted(model)
    fix = "pass what share_jax.adapt returned, or a module with layers of share_jax"
    got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise InputError(message("model", got=got, expected="an adapted model or a Flax module", fix=fix))


def forward_of(model: Any, remat: Remat | None = None) -> Forward:
    """The model's output for a slot at hand.

    Args:
        model: an `AdaptedModel`, or a Linen module of one's own whose `__call__` takes `task_id` by name. How inputs
            are passed: `model_inputs.inputs_of`.
        remat: what the backward pass computes again instead of keeping it.
    """
    return as_adapted(model).forward(remat)


def arguments(inputs: Any, key: PRNGKey | None = None) -> tuple[tuple, dict[str, Any]]:
    """Arguments of a model: a dict of inputs by name, a plain tuple by place, all others as the one by place."""
    given = inputs_of(inputs)
    kwargs = dict(given.kwargs)
    if key is not None:
        kwargs["rngs"] = {**kwargs.get("rngs", {}), **streams(key, given.rngs)}
    return given.args, kwargs


def check_variables(variables: Any, what: str) -> None:
    """Refuses what is no dict of collections with "params" among them, such as the parameters without their name.

    Raises:
        InputError: naming what it has instead.
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        got, fix = entries(variables, 6), 'pass {"params": params}'
        raise InputError(message(what, got=got, expected='a dict with "params"', fix=fix))
