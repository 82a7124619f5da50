"""The update of one layer in activation space, for each of Flax's linear layers.

Every function takes the layer's own attributes, its input and one target's leaves, and returns what the adapter adds to
the layer's output. A slot is one task's matrices, or has a leading axis of one slot per example of the batch.
"""

import math
from dataclasses import fields

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from share_jax.errors import InputError, TargetError, message
from share_jax.ops.products import down_product
from share_jax.parameterizations.base import Parameterization
from share_jax.typing import Array, Leaves


def cast(leaves: Leaves, dtype: DTypeLike) -> Leaves:
    """The leaves in the layer's compute dtype, so that an adapter never promotes its output."""
    return {name: leaf.astype(dtype) for name, leaf in leaves.items()}


def as_rows(x: Array, d_in: int) -> Array:
    """(..., d_in) as (batch, n, d_in); a single vector is a batch of one."""
    return x.reshape(x.shape[0] if x.ndim > 1 else 1, -1, d_in)


def check_batch(slot: Leaves, examples: int) -> None:
    """Refuses a batched slot that is not one slot per example.

    Raises:
      InputError: naming both numbers.
    """
    for leaf in slot.values():
        if leaf.ndim == 3:
            check_ids(leaf.shape[0], examples)


def check_ids(ids: int, examples: int) -> None:
    """Refuses so many ids for so many examples.

    Raises:
      InputError: naming both numbers.
    """
    if ids != examples:
        raise InputError(
            message(
                "task_id",
                got=f"{ids} ids",
                expected=f"one id per example of a layer input with leading axis {examples}",
                fix="keep the batch as the first axis of every adapted layer, or pass one id for the batch",
            )
        )


def dense_delta(method: Parameterization, shared: Leaves, slot: Leaves, x: Array, features: tuple[int, ...]) -> Array:
    """x (..., d_in) through the pair, as (..., *features)."""
    d_in = x.shape[-1]
    rows = as_rows(x, d_in)
    check_batch(slot, rows.shape[0])
    delta = method.up(shared, slot, down_product(rows, method.down(shared, slot)))
    return delta.reshape(*x.shape[:-1], *features)


def dense_general_delta(
    module: nn.DenseGeneral, method: Parameterization, shared: Leaves, slot: Leaves, x: Array
) -> Array:
    """The contracted axes are flattened into d_in, the feature axes into d_out."""
    features = (module.features,) if isinstance(module.features, int) else tuple(module.features)
    axes = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
    axes = tuple(sorted(axis % x.ndim for axis in axes))  # as Flax orders the kernel's input axes
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    moved = jnp.transpose(x, kept + axes)
    d_in = math.prod(x.shape[axis] for axis in axes)
    flat = moved.reshape(*(x.shape[axis] for axis in kept), d_in)
    return dense_delta(method, shared, slot, flat, features)


class PlainConv(nn.Conv):
    """The convolution inside an adapter, which interceptors have to leave alone."""

    __no_type_check__ = True  # nn.Conv's fields have annotations that cannot be checked at run time


def _conv(module: nn.Conv, kernel: Array, x: Array) -> Array:
    """A convolution like `module`, with another kernel and no bias: same strides, padding, dilation and groups."""
    same = {f.name: getattr(module, f.name) for f in fields(nn.Conv) if f.name not in ("parent", "name")}
    plain = PlainConv(**{**same, "features": kernel.shape[-1], "use_bias": False}, parent=None)
    return plain.apply({"params": {"kernel": kernel}}, x)  # pyright: ignore[reportReturnType]


def conv_delta(module: nn.Conv, method: Parameterization, shared: Leaves, slot: Leaves, x: Array) -> Array:
    """A convolution to q channels (per group), then a 1x1 product to the layer's features.

    The kernel (*window, c_in / groups, c_out) is seen as a matrix of d_in = window * c_in / groups rows.
    """
    window = (module.kernel_size,) if isinstance(module.kernel_size, int) else tuple(module.kernel_size)
    groups = module.feature_group_count
    down = method.down(shared, slot)
    q = down.shape[-1]

    def through(matrix: Array, inputs: Array) -> Array:
        kernel = matrix.reshape(*window, x.shape[-1] // groups, q)
        return _conv(module, jnp.tile(kernel, (1,) * (kernel.ndim - 1) + (groups,)), inputs)

    if down.ndim == 3:
        check_batch(slot, x.shape[0])
        h = jax.vmap(lambda matrix, one: through(matrix, one[None])[0])(down, x)
    else:
        h = through(down, x)
    spatial = h.shape[:-1]
    if groups == 1:
        rows = as_rows(h, q)
        check_batch(slot, rows.shape[0])
        return method.up(shared, slot, rows).reshape(*spatial, module.features)
    return _grouped_up(method, shared, slot, h.reshape(*spatial, groups, q), module.features)


def _grouped_up(method: Parameterization, shared: Leaves, slot: Leaves, h: Array, features: int) -> Array:
    """Group g's q channels give only group g's block of the features."""
    *spatial, groups, q = h.shape
    rows = as_rows(h, q)
    check_batch(slot, rows.shape[0])
    whole = method.up(shared, slot, rows)
    blocks = whole.reshape(*spatial, groups, groups, features // groups)
    own = jnp.diagonal(blocks, axis1=-3, axis2=-2)  # (*spatial, features / groups, groups)
    return jnp.swapaxes(own, -1, -2).reshape(*spatial, features)


def embed_delta(module: nn.Embed, method: Parameterization, shared: Leaves, slot: Leaves, ids: Array) -> Array:
    """Rows of the down matrix looked up by token id, then up: (...,) ids give (..., features)."""
    down = method.down(shared, slot)
    rows = ids.reshape(ids.shape[0] if ids.ndim else 1, -1)
    check_batch(slot, rows.shape[0])
    if down.ndim == 3:
        h = jax.vmap(lambda table, one: jnp.take(table, one, axis=0))(down, rows)
    else:
        h = jnp.take(down, rows, axis=0)
    return method.up(shared, slot, h).reshape(*ids.shape, module.features)


def attend_delta(module: nn.Embed, method: Parameterization, shared: Leaves, slot: Leaves, query: Array) -> Array:
    """The tied output layer, query (..., features) @ embedding.T, through the transposed pair."""
    a, b = method.factors(shared, slot) if not _is_batched(slot) else _batched_factors(method, shared, slot)
    rows = as_rows(query, module.features)
    check_batch(slot, rows.shape[0])
    h = down_product(rows, jnp.swapaxes(b, -1, -2))
    return down_product(h, jnp.swapaxes(a, -1, -2)).reshape(*query.shape[:-1], module.num_embeddings)


def _is_batched(slot: Leaves) -> bool:
    return any(leaf.ndim == 3 for leaf in slot.values())


def _batched_factors(method: Parameterization, shared: Leaves, slot: Leaves) -> tuple[Array, Array]:
    return jax.vmap(lambda one: method.factors(shared, one))(slot)


def layer_delta(
    module: nn.Module,
    method_name: str,
    method: Parameterization,
    shared: Leaves,
    slot: Leaves,
    x: Array,
    dtype: DTypeLike,
) -> Array:
    """What the adapter adds to this layer's output.

    Args:
      module: a Dense, DenseGeneral, Conv or Embed.
      method_name: "__call__", or "attend" of an Embed.
      method: the parameterisation.
      shared: the target's shared leaves, matrices.
      slot: the target's task leaves, matrices or one matrix per example.
      x: the layer's input.
      dtype: the dtype of the layer's output, in which the adapter computes.

    Raises:
      TargetError: if the layer is of another kind.
      InputError: if the ids of a mixed batch do not fit the layer's input.
    """
    shared, slot = cast(shared, dtype), cast(slot, dtype)
    if isinstance(module, nn.Embed):
        if method_name == "attend":
            return attend_delta(module, method, shared, slot, x.astype(dtype))
        return embed_delta(module, method, shared, slot, x)
    inputs = x.astype(dtype)
    if isinstance(module, nn.Dense):
        return dense_delta(method, shared, slot, inputs, (module.features,))
    if isinstance(module, nn.DenseGeneral):
        return dense_general_delta(module, method, shared, slot, inputs)
    if isinstance(module, nn.Conv):
        return conv_delta(module, method, shared, slot, inputs)
    raise TargetError(
        message(
            "adapted layer",
            got=type(module).__name__,
            expected="Dense, DenseGeneral, Conv or Embed",
            fix="adapt it with space='parameter'",
        )
    )
