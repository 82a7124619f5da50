"""Between the trees of a model and one record for each adapted kernel, as adapters and a subspace name them.

A target whose layers `nn.scan` or `nn.vmap` stacked is one kernel for each of them, by the path and the layer's index:
`layers/ffn/kernel[0]`, `layers/ffn/kernel[1]`. Every other target is named by its kernel's path.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from share_jax.layers.targets import Target
from share_jax.trees import at, nested, path_of
from share_jax.typing import Leaves, Tree


def target_names(target: Target) -> tuple[str, ...]:
    """The names of a target's kernels in a subspace: its path, or one for each stacked layer.

    Example:
        >>> target_names(Target("layers/ffn/kernel", ("layers", "ffn"), "Dense", (8, 4), 1, stacked=2))
        ('layers/ffn/kernel[0]', 'layers/ffn/kernel[1]')
    """
    return (target.path,) if target.stacked is None else tuple(f"{target.path}[{i}]" for i in range(target.stacked))


def by_kernel(targets: Sequence[Target], tree: Tree) -> dict[str, Leaves]:
    """The leaves of every adapted kernel, by the names of `target_names`."""
    found = {}
    for target in targets:
        own = at(tree, target.leaves_path)
        for index, name in enumerate(target_names(target)):
            found[name] = own if target.stacked is None else {key: leaf[index] for key, leaf in own.items()}
    return found


def as_tree(targets: Sequence[Target], leaves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The inverse of `by_kernel`; a target of which not every layer has leaves is left out."""
    found = {}
    for target in targets:
        own = [leaves[name] for name in target_names(target) if name in leaves]
        if len(own) < len(target_names(target)):
            continue
        for key in (key for key in own[0] if all(key in each for each in own)):
            leaf = own[0][key] if target.stacked is None else jnp.stack([each[key] for each in own])
            found[path_of((*target.leaves_path, key))] = leaf
    return nested(found)
