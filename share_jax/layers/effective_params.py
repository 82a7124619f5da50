"""Parameter space: the effective kernel is base + delta, and the unmodified model is applied to it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from share_jax.layers.kernel_matrix import as_kernel
from share_jax.layers.targets import Target
from share_jax.parameterizations.base import Parameterization
from share_jax.trees import at, flat, nested
from share_jax.typing import AnyArray, Leaves, Tree


def kernel_delta(method: Parameterization, target: Target, shared: Leaves, slot: Leaves) -> AnyArray:
    """The update of one kernel, in the kernel's own shape, with the axis of a scan in front where there is one.

    It costs a temporary of the kernel's size.
    """

    def one(shared: Leaves, slot: Leaves) -> AnyArray:
        a, b = method.factors(shared, slot)
        return as_kernel(a @ b, target.shape, target.order)

    return jax.vmap(one)(shared, slot) if target.stacked is not None else one(shared, slot)


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
    """
    leaves = flat(params)
    for target in targets:
        delta = kernel_delta(method, target, at(shared, target.module_path), at(slot, target.module_path))
        kernel = leaves[target.path]
        leaves[target.path] = (kernel + delta.astype(jnp.promote_types(kernel.dtype, delta.dtype))).astype(kernel.dtype)
    return nested(leaves)
