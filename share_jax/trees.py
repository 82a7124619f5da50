"""Nested dictionaries as Flax keeps them, read and changed by path; nothing is changed in place."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from share_jax.typing import Tree


def flat(tree: Tree) -> dict[str, Any]:
    """Leaves by their path, joined with "/", in the order of `jax.tree.leaves`."""
    return dict(sorted(traverse_util.flatten_dict(dict(tree), sep="/").items())) if tree else {}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def at(tree: Tree, path: tuple[str, ...]) -> dict[str, Any]:
    """The sub-tree at a path; an empty one where there is none."""
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return {}
        tree = tree[key]
    return dict(tree)


def merged(base: Tree, over: Tree) -> dict[str, Any]:
    """`base` with the leaves of `over` in place of, or beside, its own."""
    return nested({**flat(base), **flat(over)})


def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Shape of each leaf by its path."""
    return {path: tuple(leaf.shape) for path, leaf in flat(tree).items()}


def abstract(tree: Any) -> Any:
    """The tree with shapes and dtypes in place of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
