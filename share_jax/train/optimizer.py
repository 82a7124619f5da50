"""Which leaves train: `optax.multi_transform` over what is shared, the task's adapter and the task's head.

The trained tree is {"shared": ..., "slot": ...}: the base model is not in it, nor is any other task, so neither can
have a gradient, an optimizer state, or a part in a clipped norm.
"""

from collections.abc import Collection, Hashable
from typing import Any

import jax
import optax

from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.built_in import leaf_specs
from share_jax.trees import path_of
from share_jax.typing import Tree

FROZEN = "frozen"
SHARED = "shared"
ADAPTER = "adapter"
HEAD = "head"


def labels(trained: Tree, heads: Collection[str], *, train_shared: bool, method: Parameterization | None = None) -> Any:
    """The label of every leaf of {"shared": ..., "slot": ...}.

    Args:
        trained: the tree that a task's optimisation works on.
        heads: paths within the slot of the parameters that the task owns whole.
        train_shared: whether what is shared trains, as it does in the first task.
        method: whose `LeafSpec`s say which leaves never train; by their names those of the library's methods when None.

    Returns:
        The same tree with "shared" or "frozen", "adapter" and "head" in place of arrays.
    """
    never = {
        place: {name for name, spec in leaf_specs(owner, method).items() if spec.trains == "never"}
        for place, owner in (("shared", "shared"), ("slot", "task"))
    }

    def of(path: tuple, leaf: Any) -> str:
        keys = [str(entry.key) for entry in path]
        if keys[0] == "slot" and path_of(keys[1:]) in heads:
            return HEAD
        if keys[-1] in never[keys[0]]:
            return FROZEN
        return ADAPTER if keys[0] == "slot" else SHARED if train_shared else FROZEN

    return jax.tree_util.tree_map_with_path(of, dict(trained))


def task_optimizer(
    transform: optax.GradientTransformation,
    heads: Collection[str] = (),
    *,
    train_shared: bool,
    method: Parameterization | None = None,
    head_transform: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """The optimizer of one task.

    Args:
        transform: for the adapter, and for what is shared while that trains. Clipping by global norm belongs in here:
            it then sees only leaves that train.
        heads: paths within the slot of the parameters that the task owns whole.
        train_shared: True for the first task, False after it.
        method: whose leaves these are; those of the library's methods are known by their names when None.
        head_transform: for the heads; the same `transform`, in one group with the adapter, when None.

    Returns:
        A transformation over {"shared": ..., "slot": ...} that keeps no state for frozen leaves.

    Example:
        >>> import jax.numpy as jnp
        >>> trained = {"shared": {"lora_a": jnp.ones((4, 2))}, "slot": {"lora_b": jnp.ones((2, 3))}}
        >>> optimizer = task_optimizer(optax.sgd(0.5), train_shared=False)  # of a later task
        >>> updates, _ = optimizer.update(trained, optimizer.init(trained), trained)
        >>> float(updates["shared"]["lora_a"].min()), float(updates["slot"]["lora_b"].min())
        (0.0, -0.5)
    """

    def group(trained: Tree) -> Any:
        merged = {SHARED: ADAPTER, HEAD: ADAPTER if head_transform is None else HEAD}
        named = labels(trained, heads, train_shared=train_shared, method=method)
        return jax.tree.map(lambda name: merged.get(name, name), named)

    transforms: dict[Hashable, optax.GradientTransformation] = {ADAPTER: transform, FROZEN: optax.set_to_zero()}
    if head_transform is not None:
        transforms[HEAD] = head_transform
    return optax.multi_transform(transforms, group)


def apply_updates(trained: Tree, updates: Any, *, train_shared: bool) -> dict[str, Any]:
    """`optax.apply_updates` that returns frozen leaves as they are, to the bit."""
    return {
        "shared": optax.apply_updates(trained["shared"], updates["shared"]) if train_shared else trained["shared"],
        "slot": optax.apply_updates(trained["slot"], updates["slot"]),
    }


def with_leaves_of(other: Any, tree: Any, paths: Collection[str]) -> Any:
    """The tree with another one's leaves at some paths."""

    def of(path: tuple, leaf: Any, own: Any) -> Any:
        return own if path_of([str(entry.key) for entry in path]) in paths else leaf

    return jax.tree_util.tree_map_with_path(of, tree, other)
