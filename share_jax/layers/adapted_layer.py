"""The output of an adapted layer: with the update beside the layer, or merged into its kernel where that is cheaper."""

import math
from typing import Any

import jax.numpy as jnp

from share_jax.bank.slots import TaskSlots
from share_jax.layers.deltas import cast, layer_delta
from share_jax.layers.kernel_matrix import matrix_shape
from share_jax.layers.mixed_layer import mixed_output
from share_jax.layers.spec import Layer
from share_jax.ops.products import merging_pays, outer_sum, with_merged_kernel
from share_jax.parameterizations.base import Parameterization, specs
from share_jax.typing import Array, Leaves


def adapted_output(
    layer: Layer, method_name: str, method: Parameterization, shared: Leaves, slots: TaskSlots, x: Array
) -> Array:
    """The output of an adapted layer.

    Args:
        layer: the layer.
        method_name: "__call__", or "attend" of a table.
        method: the parameterisation.
        shared: the target's shared leaves, matrices.
        slots: the target's task leaves.
        x: the layer's input.

    Raises:
        InputError: if the ids of a mixed batch do not fit the layer's input.
    """
    if slots.batched and (y := mixed_output(layer, method, shared, *slots.stack(), x)) is not None:
        return y
    slots = slots.at_hand()
    if not _merging_pays(layer, method, slots, x):
        y = layer.plain()
        return y + layer_delta(layer, method_name, method, shared, slots, x, y.dtype)
    dtype = layer.dtype(x)

    def run(params: dict[str, Array], leaves: tuple[Leaves, Leaves], x: Array) -> Any:
        pair: Any = method.factors(*(cast(own, dtype) for own in leaves))
        kernel = outer_sum(*pair).reshape(params["kernel"].shape) + params["kernel"]
        return layer.on({**params, "kernel": kernel}, x)

    def delta(leaves: tuple[Leaves, Leaves], x: Array) -> Array:
        return layer_delta(layer, method_name, method, leaves[0], TaskSlots(leaves[1]), x, dtype)

    return with_merged_kernel(run, delta)(dict(layer.params), (shared, slots.leaves), x)


def _merging_pays(layer: Layer, method: Parameterization, slots: TaskSlots, x: Array) -> bool:
    if layer.spec.kind not in ("dense", "general") or slots.batched:
        return False
    dtype = layer.dtype(x)
    matrices = all(len(spec.axes) == 2 for spec in specs(method, "task").values())
    if not matrices or not jnp.issubdtype(dtype, jnp.floating):
        return False
    kernel = layer.params["kernel"]
    d_in, d_out = matrix_shape(kernel.shape, layer.spec.input_axes(kernel.ndim))
    return merging_pays(math.prod(x.shape) // d_in, d_in, d_out, dtype)
