"""The update of one layer in activation space, for each kind of linear layer.

Every function takes the layer, its input and one target's leaves, and returns what the adapter adds to the layer's
output. The slots are at hand: one task's matrices, or one slot per example of the batch.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from share_jax.bank.slots import TaskSlots
from share_jax.errors import InputError, message
from share_jax.layers.spec import Layer, LayerSpec
from share_jax.ops.products import down_product
from share_jax.parameterizations.base import Parameterization, own_down
from share_jax.typing import Array, Leaves


def cast(leaves: Leaves, dtype: DTypeLike) -> Leaves:
    """The leaves in the layer's compute dtype, so that an adapter never promotes its output."""
    return {name: leaf.astype(dtype) for name, leaf in leaves.items()}


def as_rows(x: Array, d_in: int) -> Array:
    """(..., d_in) as (batch, n, d_in); a single vector is a batch of one."""
    return x.reshape(x.shape[0] if x.ndim > 1 else 1, -1, d_in)


def check_batch(slots: TaskSlots, examples: int) -> None:
    """Refuses slots at hand that are not one per example.

    Raises:
        UnlikeBatchError: naming both numbers.
    """
    if slots.per_example:
        for leaf in jax.tree.leaves(slots.leaves):
            check_ids(leaf.shape[0], examples)


class UnlikeBatchError(InputError):
    """A layer whose input does not begin with the batch's examples, or that cannot take a slot for each."""


def check_ids(ids: int, examples: int) -> None:
    """Refuses so many ids for so many examples.

    Raises:
        UnlikeBatchError: naming both numbers.
    """
    if ids != examples:
        raise UnlikeBatchError(
            message(
                "task_id",
                got=f"{ids} ids",
                expected=f"one id per example of a layer input with leading axis {examples}",
                fix="keep the batch as the first axis of every adapted layer, or pass one id for the batch",
            )
        )


def _dense(method: Parameterization, shared: Leaves, slots: TaskSlots, x: Array, features: tuple[int, ...]) -> Array:
    """x (..., d_in) through the pair, as (..., *features)."""
    d_in = x.shape[-1]
    rows = as_rows(x, d_in)
    check_batch(slots, rows.shape[0])
    delta = method.up(shared, slots.leaves, down_product(rows, method.down(shared, slots.leaves)))
    return delta.reshape(*x.shape[:-1], *features)


def _general(spec: LayerSpec, method: Parameterization, shared: Leaves, slots: TaskSlots, x: Array) -> Array:
    """The contracted axes are flattened into d_in, the feature axes into d_out."""
    axes = tuple(sorted(axis % x.ndim for axis in spec.axis))  # as Flax orders the kernel's input axes
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    moved = jnp.transpose(x, kept + axes)
    d_in = math.prod(x.shape[axis] for axis in axes)
    flat = moved.reshape(*(x.shape[axis] for axis in kept), d_in)
    return _dense(method, shared, slots, flat, spec.features)


def _conv(layer: Layer, method: Parameterization, shared: Leaves, slots: TaskSlots, x: Array) -> Array:
    """A convolution to q channels (per group), then a 1x1 product to the layer's features.

    The kernel (*window, c_in / groups, c_out) is seen as a matrix of d_in = window * c_in / groups rows.
    """
    (features,), groups = layer.spec.features, layer.spec.groups
    down = method.down(shared, slots.leaves)
    q = down.shape[-1]

    def through(matrix: Array, inputs: Array) -> Array:
        kernel = matrix.reshape(*layer.spec.window, x.shape[-1] // groups, q)
        return layer.convolve(jnp.tile(kernel, (1,) * (kernel.ndim - 1) + (groups,)), inputs)

    if slots.per_example and own_down(method):
        check_batch(slots, x.shape[0])
        h = jax.vmap(lambda matrix, one: through(matrix, one[None])[0])(down, x)
    else:
        h = through(down, x)
    spatial = h.shape[:-1]
    if groups == 1:
        rows = as_rows(h, q)
        check_batch(slots, rows.shape[0])
        return method.up(shared, slots.leaves, rows).reshape(*spatial, features)
    return _grouped_up(method, shared, slots, h.reshape(*spatial, groups, q), features)


def _grouped_up(method: Parameterization, shared: Leaves, slots: TaskSlots, h: Array, features: int) -> Array:
    """Group g's q channels give only group g's block of the features."""
    *spatial, groups, q = h.shape
    rows = as_rows(h, q)
    check_batch(slots, rows.shape[0])
    whole = method.up(shared, slots.leaves, rows)
    blocks = whole.reshape(*spatial, groups, groups, features // groups)
    own = jnp.diagonal(blocks, axis1=-3, axis2=-2)  # (*spatial, features / groups, groups)
    return jnp.swapaxes(own, -1, -2).reshape(*spatial, features)


def _embed(spec: LayerSpec, method: Parameterization, shared: Leaves, slots: TaskSlots, ids: Array) -> Array:
    """Rows of the down matrix looked up by token id, then up: (...,) ids give (..., features)."""
    down = method.down(shared, slots.leaves)
    rows = ids.reshape(ids.shape[0] if ids.ndim else 1, -1)
    check_batch(slots, rows.shape[0])
    rows = jnp.zeros_like(rows) if spec.rows == 1 else rows  # Flax's layer has its one row for every id
    if slots.per_example and own_down(method):
        h = jax.vmap(lambda table, one: jnp.take(table, one, axis=0))(down, rows)
    else:
        h = jnp.take(down, rows, axis=0)
    return method.up(shared, slots.leaves, h).reshape(*ids.shape, *spec.features)


def _attend(spec: LayerSpec, method: Parameterization, shared: Leaves, slots: TaskSlots, query: Array) -> Array:
    """The tied output layer, query (..., features) @ embedding.T, through the transposed pair."""
    factors = lambda own: method.factors(shared, own)  # noqa: E731
    a, b = (jax.vmap(factors) if slots.per_example else factors)(slots.leaves)
    rows = as_rows(query, *spec.features)
    check_batch(slots, rows.shape[0])
    h = down_product(rows, jnp.swapaxes(b, -1, -2))
    return down_product(h, jnp.swapaxes(a, -1, -2)).reshape(*query.shape[:-1], spec.rows)


def layer_delta(
    layer: Layer,
    method_name: str,
    method: Parameterization,
    shared: Leaves,
    slots: TaskSlots,
    x: Array,
    dtype: DTypeLike,
) -> Array:
    """What the adapter adds to this layer's output.

    Args:
        layer: the layer.
        method_name: "__call__", or "attend" of a table.
        method: the parameterisation.
        shared: the target's shared leaves, matrices.
        slots: the target's task leaves, at hand.
        x: the layer's input.
        dtype: the dtype of the layer's output, in which the adapter computes.

    Raises:
        InputError: if the ids of a mixed batch do not fit the layer's input.
    """
    shared, slots = cast(shared, dtype), replace(slots, leaves=cast(slots.leaves, dtype))
    spec = layer.spec
    if spec.kind == "embed":
        if method_name == "attend":
            return _attend(spec, method, shared, slots, x.astype(dtype))
        return _embed(spec, method, shared, slots, x)
    inputs = x.astype(dtype)
    if spec.kind == "dense":
        return _dense(method, shared, slots, inputs, spec.features)
    if spec.kind == "general":
        return _general(spec, method, shared, slots, inputs)
    return _conv(layer, method, shared, slots, inputs)
