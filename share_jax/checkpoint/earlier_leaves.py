"""Banks saved when a kernel that a model takes apart by index was one matrix, read as they are today.

Such a bank has one pair for the whole array, whose rows are all its axes but the last. The update of one index is its
rows of that product, so each index gets its own rows of what lies along d_in, and all of what does not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from share_jax.layers.targets import Target
from share_jax.parameterizations.base import LeafSpec, Parameterization
from share_jax.trees import flat, nested, path_of
from share_jax.typing import Tree


@dataclass(frozen=True)
class _Leaf:
    """One leaf of a target.

    Attributes:
        whole: the shape of the kernel's array.
        order: the axes of its rows, those of its layers first.
        layers: how many layers there are.
        spec: what of the leaf does not depend on the kernel.
        shape: the one that it had.
    """

    whole: tuple[int, ...]
    order: tuple[int, ...]
    layers: int
    spec: LeafSpec
    shape: tuple[int, ...]

    def apart(self, saved: np.ndarray) -> np.ndarray:
        """The leaf of each layer, (layers, ...)."""
        if "d_in" not in self.spec.axes:
            return np.broadcast_to(saved, (self.layers, *saved.shape))
        side = self.spec.axes.index("d_in")
        rows = np.moveaxis(saved, side, -1)
        rows = rows.reshape(*rows.shape[:-1], *self.whole[:-1])
        first = rows.ndim - len(self.order)
        rows = rows.transpose(*range(first), *(first + axis for axis in self.order))
        rows = rows.reshape(*rows.shape[:first], self.layers, -1)
        return np.moveaxis(np.moveaxis(rows, -2, 0), -1, side + 1)


def earlier_leaves(
    method: Parameterization, targets: Sequence[Target], params: Tree, saved: Mapping[str, Any], like: Tree
) -> dict[str, _Leaf]:
    """The leaves that were saved in their earlier shapes, by path; none of a bank of today.

    Args:
        method: the parameterisation.
        targets: the adapted kernels.
        params: the base model's parameters.
        saved: {"shape": list, ...} of every leaf on disk, by path.
        like: the leaves as they are today.
    """
    kernels, leaves, found = flat(params), flat(like), {}
    for target in targets:
        if target.stacked is None:
            continue
        whole, layers = tuple(kernels[target.path].shape), target.layer_axes
        own = [axis for axis in range(len(whole)) if axis not in layers]
        order = (*layers, *(own[axis] for axis in target.order[: target.in_axes]))
        if sorted(order) != list(range(len(whole) - 1)):
            continue  # the columns were another axis than the layers' outputs
        earlier, specs = method.leaves(math.prod(whole[:-1]), whole[-1]), method.leaves(1, 1)
        for name in specs:
            path, shape = path_of((*target.leaves_path, name)), earlier[name].shape
            if path in leaves and path in saved and tuple(saved[path]["shape"]) == shape != tuple(leaves[path].shape):
                found[path] = _Leaf(whole, order, target.stacked, specs[name], shape)
    return found


def as_saved(earlier: Mapping[str, _Leaf], like: Tree) -> Tree:
    """`like` with these leaves in their earlier shapes."""
    leaves = flat(like)
    return nested({**leaves, **{path: np.empty(leaf.shape, leaves[path].dtype) for path, leaf in earlier.items()}})


def as_today(earlier: Mapping[str, _Leaf], read: Tree) -> Tree:
    """What was read, with these leaves as they are today: the updates are those that were saved."""
    leaves = flat(read)
    return nested(
        {**leaves, **{path: jnp.asarray(leaf.apart(np.asarray(leaves[path]))) for path, leaf in earlier.items()}}
    )
