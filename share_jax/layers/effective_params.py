"""Parameter space: the effective kernel is base + delta, and the unmodified model is applied to it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from share_jax.errors import TargetError, message
from share_jax.layers.kernel_matrix import as_kernel
from share_jax.layers.stored_kernel import is_quantized, no_update
from share_jax.layers.targets import Target
from share_jax.parameterizations.base import Parameterization
from share_jax.trees import at, flat, nested
from share_jax.typing import AnyArray, Leaves, Tree


def kernel_delta(method: Parameterization, target: Target, shared: Leaves, slot: Leaves) -> AnyArray:
    """The update of one kernel, in the kernel's own shape, with its layers in front where several are stacked.

    It costs a temporary of the kernel's size.
    """

    def one(shared: Leaves, slot: Leaves) -> AnyArray:
        a, b = method.factors(shared, slot)
        return as_kernel(a @ b, target.shape, target.order)

    return jax.vmap(one)(shared, slot) if target.stacked is not None else one(shared, slot)


def own_leaves(method: Parameterization, target: Target, shared: Tree, slot: Tree) -> tuple[Leaves, Leaves]:
    """A target's shared leaves and its task's, without what else lies beside them."""
    names = method.leaves(1, 1)
    both = (at(tree, target.leaves_path) for tree in (shared, slot))
    of_shared, of_task = ({name: own[name] for name in names if name in own} for own in both)
    return of_shared, of_task


def effective_params(
    method: Parameterization, targets: Sequence[Target], params: Tree, shared: Tree, slot: Tree
) -> dict[str, Any]:
    """`params` with base + delta in place of each adapted kernel.

    Args:
        method: the parameterisation.
        targets: the adapted kernels.
        params: the base model's parameters.
        shared: the `shared` tree.
        slot: one task's leaves, without task axis.

    Returns:
        A tree of the structure, shapes and dtypes of `params`.

    Raises:
        TargetError: if an adapted kernel is quantised.
    """
    leaves = flat(params)
    for target in targets:
        delta = kernel_delta(method, target, *own_leaves(method, target, shared, slot))
        kernel = leaves[target.path]
        if is_quantized(kernel):
            fix = "apply the adapted model, whose activation space decodes it"
            got, expected = no_update(kernel), "a floating kernel"
            raise TargetError(message(f"kernel {target.path}", got=got, expected=expected, fix=fix))
        if target.stacked is not None:
            lengths = tuple(kernel.shape[axis] for axis in target.layer_axes)
            delta = delta.reshape(lengths + target.shape)
            delta = jnp.moveaxis(delta, tuple(range(len(lengths))), target.layer_axes)
        leaves[target.path] = (kernel + delta.astype(jnp.promote_types(kernel.dtype, delta.dtype))).astype(kernel.dtype)
    return nested(leaves)
