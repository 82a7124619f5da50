"""The output of an adapted layer: with the update beside the layer, or folded into its kernel where that is cheaper."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from share_jax.layers.deltas import PlainConv, cast, layer_delta
from share_jax.layers.kernel_matrix import input_axes, matrix_shape
from share_jax.ops.products import fold_pays, folded, outer_sum
from share_jax.parameterizations.base import Parameterization
from share_jax.typing import Array, Leaves


class PlainDense(nn.Dense):
    """The layer on a folded kernel, which interceptors have to leave alone."""

    __no_type_check__ = True  # nn.Dense's fields have annotations that cannot be checked at run time


class PlainDenseGeneral(nn.DenseGeneral):
    """The same for nn.DenseGeneral."""

    __no_type_check__ = True


PLAIN = (PlainConv, PlainDense, PlainDenseGeneral)
"""Layers that run inside an adapted one."""

_FOLDED: dict[type, type] = {nn.Dense: PlainDense, nn.DenseGeneral: PlainDenseGeneral}


def adapted_output(
    module: nn.Module,
    method_name: str,
    method: Parameterization,
    shared: Leaves,
    slot: Leaves,
    x: Array,
    plain: Callable[[], Array],
) -> Array:
    """What an adapted layer answers.

    Args:
      module: a Dense, DenseGeneral, Conv or Embed.
      method_name: "__call__", or "attend" of an Embed.
      method: the parameterisation.
      shared: the target's shared leaves, matrices.
      slot: the target's task leaves, matrices or one matrix per example.
      x: the layer's input.
      plain: runs the layer as it is.

    Raises:
      TargetError: if the layer is of another kind.
      InputError: if the ids of a mixed batch do not fit the layer's input.
    """
    kind = next((kind for kind in _FOLDED if isinstance(module, kind)), None)
    if kind is None or not _fold_pays(module, slot, x):
        y = plain()
        return y + layer_delta(module, method_name, method, shared, slot, x, y.dtype)
    same = {f.name: getattr(module, f.name) for f in fields(kind) if f.name not in ("parent", "name")}
    layer, dtype = _FOLDED[kind](**same, parent=None), dtype_of(module, x)

    def run(params: dict[str, Array], leaves: tuple[Leaves, Leaves], x: Array) -> Any:
        a, b = method.factors(*(cast(own, dtype) for own in leaves))
        kernel = outer_sum(a, b).reshape(params["kernel"].shape) + params["kernel"]
        return layer.apply({"params": {**params, "kernel": kernel}}, x)

    def delta(leaves: tuple[Leaves, Leaves], x: Array) -> Array:
        return layer_delta(module, method_name, method, *leaves, x, dtype)

    return folded(run, delta)(dict(module.variables["params"]), (shared, slot), x)


def dtype_of(module: Any, x: Array) -> Any:
    """Of the layer's output."""
    return module.dtype or jnp.result_type(x, *module.variables["params"].values())


def _fold_pays(module: Any, slot: Leaves, x: Array) -> bool:
    dtype = dtype_of(module, x)
    if any(leaf.ndim != 2 for leaf in slot.values()) or not jnp.issubdtype(dtype, jnp.floating):
        return False
    kernel = module.variables["params"]["kernel"]
    d_in, d_out = matrix_shape(kernel.shape, input_axes(module, kernel.ndim))
    return fold_pays(math.prod(x.shape) // d_in, d_in, d_out, dtype)
