"""Nested dictionaries as Flax keeps them, read and changed by path; nothing is changed in place."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util

from share_jax.errors import InputError, message
from share_jax.typing import Tree

SLASH = "\N{DIVISION SLASH}"
"""What stands in a path for a "/" within a key, as in the parameters of nn.WeightNorm."""


def path_of(keys: Sequence[Any]) -> str:
    """Keys as one path, joined with "/".

    Raises:
        InputError: if a key is no text.

    >>> path_of(("encoder", "kernel")), keys_of(path_of(("norm", "dense/kernel/scale")))
    ('encoder/kernel', ('norm', 'dense/kernel/scale'))
    """
    for key in (key for key in keys if not isinstance(key, str)):
        fix = "name every level of the tree; of an NNX module adapt the module itself"
        raise InputError(message("key of a tree", got=f"{key!r}", expected="a name", fix=fix))
    return "/".join(key.replace("/", SLASH) for key in keys)


def text_of(keys: Iterable[Any]) -> str:
    """Keys of any kind, such as the numbers of a list, as one text to match and to show.

    >>> text_of(("blocks", 0, "kernel"))
    'blocks/0/kernel'
    """
    return "/".join(map(str, keys))


def keys_of(path: str) -> tuple[str, ...]:
    """The inverse of `path_of`."""
    return tuple(key.replace(SLASH, "/") for key in path.split("/"))


def plain_text(path: str) -> str:
    """A path as a reader types it, every "/" alike."""
    return path.replace(SLASH, "/")


def flat(tree: Tree) -> dict[str, Any]:
    """Leaves by their path, in the order of `jax.tree.leaves`."""
    leaves = traverse_util.flatten_dict(dict(tree)) if tree else {}
    return dict(sorted(((path_of(keys), leaf) for keys, leaf in leaves.items()), key=lambda item: item[0]))


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    return traverse_util.unflatten_dict({keys_of(path): leaf for path, leaf in leaves.items()})


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


def own_containers(tree: Any) -> Any:
    """The same leaves in dicts, lists and tuples of their own, for a model that changes those that it is called with.

    >>> given = {"x": [1, 2]}
    >>> own_containers(given) == given, own_containers(given)["x"] is given["x"]
    (True, False)
    """
    if type(tree) is dict:
        return {key: own_containers(value) for key, value in tree.items()}
    return type(tree)(own_containers(value) for value in tree) if type(tree) in (list, tuple) else tree
