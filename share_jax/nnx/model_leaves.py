"""The leaves of a live model by path, whether it is an NNX module, its state, or nested dicts, and one with others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from share_jax.errors import InputError, message
from share_jax.nnx.module_function import split
from share_jax.trees import text_of


@dataclass(frozen=True)
class LiveTree:
    """Leaves of a model.

    Attributes:
        what: it is, for a message.
        leaves: arrays by path.
        rebuilt: (new values by path) to a tree of the same kind, with all others as they are.
    """

    what: str
    leaves: dict[str, Any]
    rebuilt: Callable[[Mapping[str, Any]], Any]

    def with_leaves(self, new: Mapping[str, Any]) -> Any:
        """The tree with other values of some leaves, in the dtype that each leaf has."""
        return self.rebuilt({path: jnp.asarray(value, self.leaves[path].dtype) for path, value in new.items()})


def live_tree(model: Any) -> LiveTree:
    """The leaves of a model.

    Args:
        model: an NNX module, an `nnx.State`, or nested dicts of arrays or variables.

    Raises:
        InputError: it is none of them.
    """
    what = type(model).__name__
    if isinstance(model, nnx.Module):
        graph, state = split(model)
        inner = _of_state(state, what)
        return LiveTree(what, inner.leaves, lambda new: nnx.merge(graph, inner.rebuilt(new), copy=True))
    if isinstance(model, nnx.State):
        return _of_state(model, what)
    if isinstance(model, Mapping):
        return _of_dicts(model, what)
    expected, fix = "an nnx.Module, its state, or nested dicts", "pass the model itself"
    raise InputError(message("model with LoRA", got=what, expected=expected, fix=fix))


def _of_state(state: nnx.State, what: str) -> LiveTree:
    found = {text_of(keys): (keys, variable) for keys, variable in nnx.to_flat_state(state)}

    def rebuilt(new: Mapping[str, Any]) -> nnx.State:
        return nnx.from_flat_state(
            {keys: _other(leaf, new[path]) if path in new else leaf for path, (keys, leaf) in found.items()}
        )

    return LiveTree(what, {path: _value(leaf) for path, (_, leaf) in found.items()}, rebuilt)


def _of_dicts(tree: Mapping[Any, Any], what: str) -> LiveTree:
    found, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    texts = [jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in found]

    def rebuilt(new: Mapping[str, Any]) -> Any:
        values = [
            _other(leaf, new[path]) if path in new else leaf for path, (_, leaf) in zip(texts, found, strict=True)
        ]
        return jax.tree.unflatten(structure, values)

    return LiveTree(what, {path: _value(leaf) for path, (_, leaf) in zip(texts, found, strict=True)}, rebuilt)


def _value(leaf: Any) -> Any:
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _other(leaf: Any, value: Any) -> Any:
    return leaf.replace(value) if isinstance(leaf, nnx.Variable) else value
