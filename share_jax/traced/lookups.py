"""A lookup of a traced program in a kernel that is a table, and a convolution with one."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from share_jax.bank.slots import TaskSlots
from share_jax.layers.deltas import as_rows, cast, layer_delta
from share_jax.layers.spec import Layer, LayerSpec
from share_jax.parameterizations.base import Parameterization
from share_jax.traced.kernel_view import KernelView, canonical, from_side
from share_jax.traced.operations import Operation, Sides, Use
from share_jax.typing import Array


@dataclass(frozen=True)
class Lookup:
    """A `gather` of whole rows along one axis of a table.

    Attributes:
        view: the table.
        indices: (..., 1)
        params: of the operation.
    """

    view: KernelView
    indices: Array
    params: dict[str, Any]

    @property
    def axis(self) -> int:
        """Of the view, along which rows are looked up."""
        return self.params["dimension_numbers"].start_index_map[0]

    def plain(self) -> Array:
        """The rows without an update."""
        return lax.gather_p.bind(self.view.value, self.indices, **self.params)

    def adapted(self, method: Parameterization, sides: Sides) -> Array:
        """The rows with the update of one task: those of the first factor, looked up, times the second."""
        y = self.plain()
        shared, slot = (cast(dict(leaves), y.dtype) for leaves in (self.view.shared, self.view.slot))
        down = method.down(shared, slot)
        before = self.indices.ndim - 1
        numbers = lax.GatherDimensionNumbers((before,), (0,), (0,))
        own = {**self.params, "dimension_numbers": numbers, "slice_sizes": (1, down.shape[1]), "fill_value": 0}
        h = lax.gather_p.bind(down, self.indices, **own)  # (..., q)
        h = h if self.view.scale is None else h * self.view.scale
        up = method.up(shared, slot, as_rows(h, h.shape[-1]))
        kept = [axis for axis in range(self.view.value.ndim) if axis != self.axis]
        pieces, sizes = self.view.pieces(kept), tuple(self.view.value.shape[axis] for axis in kept)
        rows = from_side(up.reshape(*h.shape[:-1], up.shape[-1]), sizes, pieces, sides.columns)
        offsets = self.params["dimension_numbers"].offset_dims
        return y + jnp.moveaxis(rows, range(before, rows.ndim), offsets)


def lookup_of(view: KernelView, indices: Array, params: dict[str, Any]) -> Operation | str:
    """The operation, or what about it a table's lookup does not do."""
    numbers, sizes, shape = params["dimension_numbers"], params["slice_sizes"], view.value.shape
    one_axis = len(numbers.start_index_map) == 1 and numbers.collapsed_slice_dims == numbers.start_index_map
    if not one_axis or numbers.operand_batching_dims or numbers.start_indices_batching_dims:
        return "a lookup along several of its axes"
    lookup = Lookup(view, indices, params)
    if any(size != whole for axis, (size, whole) in enumerate(zip(sizes, shape, strict=True)) if axis != lookup.axis):
        return "a lookup of parts of its rows"
    inputs, order = view.whole((lookup.axis,)), tuple(range(len(view.shape)))
    pieces = view.axes[lookup.axis]
    if inputs is None or canonical(list(pieces), order) != list(range(len(pieces))):
        return "a lookup along a part of one of its axes"
    outputs = view.whole([axis for axis in range(len(shape)) if axis != lookup.axis]) or ()
    return Operation(Use("lookup", inputs, outputs, view.slices), lookup.plain, lookup.adapted)


@dataclass(frozen=True)
class Convolution:
    """A `conv_general_dilated` with a kernel.

    Attributes:
        view: the kernel.
        x: the input.
        params: of the operation.
    """

    view: KernelView
    x: Array
    params: dict[str, Any]

    def plain(self) -> Array:
        """The output without an update."""
        return lax.conv_general_dilated_p.bind(self.x, self.view.value, **self.params)

    def adapted(self, method: Parameterization, sides: Sides) -> Array:
        """The output with the update of one task: a convolution to q channels, then a product."""
        y = self.plain()
        x = self.x if self.view.scale is None else self.x * self.view.scale
        if self.params["feature_group_count"] > 1:
            return y + self._of_groups(method, sides, x, y)
        shared, slot = (cast(dict(leaves), y.dtype) for leaves in (self.view.shared, self.view.slot))
        features, *window = self.params["dimension_numbers"].rhs_spec
        window, shape = sorted(window), self.view.value.shape
        columns = jnp.swapaxes(method.down(shared, slot), 0, 1)
        kernel = from_side(columns, tuple(shape[axis] for axis in window), self.view.pieces(window), sides.rows)
        h = lax.conv_general_dilated_p.bind(x.astype(y.dtype), jnp.moveaxis(kernel, 0, features), **self.params)
        h = jnp.moveaxis(h, self.params["dimension_numbers"].out_spec[1], -1)
        delta = method.up(shared, slot, as_rows(h, h.shape[-1])).reshape(*h.shape[:-1], shape[features])
        delta = from_side(delta, (shape[features],), self.view.pieces((features,)), sides.columns)
        return y + jnp.moveaxis(delta, -1, self.params["dimension_numbers"].out_spec[1])

    def _of_groups(self, method: Parameterization, sides: Sides, x: Array, y: Array) -> Array:
        """The update of a convolution whose groups of features have inputs of their own, as of Flax's layer."""
        numbers = self.params["dimension_numbers"]
        spatial = len(numbers.rhs_spec) - 2
        lhs, out = ((spec[0], *spec[2:], spec[1]) for spec in (numbers.lhs_spec, numbers.out_spec))  # channels last
        last = lax.ConvDimensionNumbers(
            (0, spatial + 1, *range(1, spatial + 1)),
            (spatial + 1, spatial, *range(spatial)),
            (0, spatial + 1, *range(1, spatial + 1)),
        )

        def convolve(kernel: Array, x: Array) -> Array:
            return lax.conv_general_dilated_p.bind(x, kernel, **{**self.params, "dimension_numbers": last})

        window = tuple(self.view.shape[axis] for axis in sides.rows[:-1])
        features = (math.prod(self.view.shape[axis] for axis in sides.columns),)
        spec = LayerSpec("conv", features, window=window, groups=self.params["feature_group_count"])
        layer = Layer(spec, {}, lambda: y, lambda params, x: y, convolve)
        slots, x = TaskSlots(dict(self.view.slot)), jnp.transpose(x, lhs)
        delta = layer_delta(layer, "__call__", method, dict(self.view.shared), slots, x, y.dtype)
        return jnp.transpose(delta, tuple(out.index(axis) for axis in range(y.ndim)))


def convolution_of(view: KernelView, x: Array, params: dict[str, Any]) -> Operation | str:
    """The operation, or what about it a convolutional layer does not do."""
    features, channels, *window = params["dimension_numbers"].rhs_spec
    inputs, outputs = view.whole((*window, channels)), view.whole((features,))
    grouped, single = params["feature_group_count"] > 1, all(len(axis) == 1 for axis in view.axes)
    if params["batch_group_count"] != 1 or inputs is None or outputs is None or (grouped and not single):
        return "a convolution with a reshaped kernel or grouped batches"
    ordered = tuple(view.axes[axis][0].axis for axis in (*window, channels)) if single else inputs
    ordered = ordered if len(set(ordered)) == len(ordered) else inputs
    note = "conv_general_dilated" if grouped else ""
    convolution = Convolution(view, x, params)
    use = Use("convolution", ordered, outputs, view.slices, note=note)
    return Operation(use, convolution.plain, convolution.adapted)
