"""A product of a traced program with a kernel, seen as a dense layer."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from share_jax.bank.slots import TaskSlots
from share_jax.layers.adapted_layer import adapted_output
from share_jax.layers.deltas import as_rows, cast
from share_jax.layers.spec import Layer, LayerSpec
from share_jax.ops.products import down_product
from share_jax.parameterizations.base import Parameterization
from share_jax.traced.kernel_view import KernelView, from_side, to_side
from share_jax.traced.operations import Operation, Sides, Use
from share_jax.typing import Array, Leaves


@dataclass(frozen=True)
class Product:
    """A `dot_general` with a kernel. Its axes stand here as (layers, free, contracted) and (layers, contracted, kept).

    Attributes:
        view: the kernel.
        x: the other operand.
        kernel_first: whether the kernel is the left operand.
        params: of the operation.
    """

    view: KernelView
    x: Array
    kernel_first: bool
    params: dict[str, Any]

    @property
    def own(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Axes of the kernel: layers, contracted, kept."""
        return self._axes(0 if self.kernel_first else 1, self.view.value.ndim)

    @property
    def other(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Axes of x: layers, contracted, free."""
        return self._axes(1 if self.kernel_first else 0, self.x.ndim)

    def _axes(self, side: int, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        contracted, layers = (tuple(int(axis) for axis in own[side]) for own in self.params["dimension_numbers"])
        return layers, contracted, tuple(axis for axis in range(ndim) if axis not in layers + contracted)

    def plain(self) -> Array:
        """The product without an update."""
        operands = (self.view.value, self.x) if self.kernel_first else (self.x, self.view.value)
        return lax.dot_general_p.bind(*operands, **self.params)

    def rows(self, sides: Sides) -> Array:
        """x as (layers, free, d)."""
        layers, contracted, free = self.other
        moved = jnp.transpose(self.x, layers + free + contracted)
        return to_side(moved, len(contracted), self.view.pieces(self.own[1]), sides.rows)

    def output_rows(self, y: Array, sides: Sides) -> Array:
        """The product's output as (layers, free, d)."""
        layers, _, kept = self.own
        if self.kernel_first:
            middle = range(len(layers), len(layers) + len(kept))
            y = jnp.transpose(y, (*range(len(layers)), *range(len(layers) + len(kept), y.ndim), *middle))
        return to_side(y, len(kept), self.view.pieces(kept), sides.columns)

    def output(self, y: Array, sides: Sides) -> Array:
        """The inverse of `output_rows`."""
        layers, _, kept = self.own
        y = from_side(y, tuple(self.view.value.shape[axis] for axis in kept), self.view.pieces(kept), sides.columns)
        if not self.kernel_first:
            return y
        ahead, last = len(layers), y.ndim - len(kept)
        return jnp.transpose(y, (*range(ahead), *range(last, y.ndim), *range(ahead, last)))

    def matrix(self, sides: Sides) -> Array:
        """The kernel as (d_in, d_out), where there are no layers."""
        _, contracted, kept = self.own
        moved = to_side(
            jnp.transpose(self.view.value, contracted + kept), len(kept), self.view.pieces(kept), sides.columns
        )
        columns_first = jnp.moveaxis(moved, -1, 0)
        return jnp.moveaxis(to_side(columns_first, len(contracted), self.view.pieces(contracted), sides.rows), 0, -1)

    def adapted(self, method: Parameterization, sides: Sides) -> Array:
        """The product with the update of one task."""
        rows = self.rows(sides)
        if self.own[0] or sides.turned or self.view.scale is not None:
            return self._beside(method, sides, rows)
        options = {name: self.params[name] for name in ("precision", "preferred_element_type")}

        def on(params: dict[str, Array], rows: Array) -> Array:
            return lax.dot_general(rows, params["kernel"], (((rows.ndim - 1,), (0,)), ((), ())), **options)

        matrix = self.matrix(sides)
        dtype = options["preferred_element_type"] or jnp.result_type(rows, matrix)
        spec = LayerSpec("dense", (matrix.shape[1],), dtype=jnp.dtype(dtype))
        layer = Layer(spec, {"kernel": matrix}, lambda: self.output_rows(self.plain(), sides), on, _no_convolution)
        slots = TaskSlots(dict(self.view.slot))
        y = adapted_output(layer, "__call__", method, dict(self.view.shared), slots, rows)
        return self.output(y, sides)

    def _beside(self, method: Parameterization, sides: Sides, rows: Array) -> Array:
        """The update beside the product, turned, or for every layer its own."""
        y = self.plain()
        rows = (rows if self.view.scale is None else rows * self.view.scale).astype(y.dtype)
        shared, slot = (cast(dict(leaves), y.dtype) for leaves in (self.view.shared, self.view.slot))

        def one(rows: Array, shared: Leaves, slot: Leaves) -> Array:
            if sides.turned:
                a, b = (jnp.asarray(factor) for factor in method.factors(shared, slot))
                back = down_product(down_product(as_rows(rows, rows.shape[-1]), b.T), a.T)
                return back.reshape(*rows.shape[:-1], a.shape[0])
            h = down_product(as_rows(rows, rows.shape[-1]), method.down(shared, slot))
            delta = method.up(shared, slot, h)
            return delta.reshape(*rows.shape[:-1], delta.shape[-1])

        if not (layers := self.own[0]):
            return y + self.output(one(rows, shared, slot), sides)
        ahead = rows.shape[: len(layers)]  # of one axis of layers, in parts
        delta = jax.vmap(one)(rows.reshape(-1, *rows.shape[len(layers) :]), shared, slot)
        return y + self.output(delta.reshape(*ahead, *delta.shape[1:]), sides)


def _no_convolution(kernel: Array, x: Array) -> Array:
    raise TypeError("a product has no convolution")


def product_of(view: KernelView, x: Array, kernel_first: bool, params: dict[str, Any]) -> Operation | str:
    """The operation, or what about it a linear layer does not do.

    Args:
        view: the kernel.
        x: the other operand.
        kernel_first: whether the kernel is the left operand.
        params: of the `dot_general`.
    """
    product = Product(view, x, kernel_first, params)
    layers, contracted, kept = product.own
    batch, inputs, outputs = (view.whole(axes) for axes in (layers, contracted, kept))
    if batch is None or inputs is None or outputs is None:
        return "a product that contracts a part of one of its axes"
    digits = view.pieces(layers)
    if len(digits) > len(batch) and (len(batch) > 1 or digits != sorted(digits, key=lambda piece: -piece.stride)):
        return "a product with parts of an axis of layers in another order"
    return Operation(Use("product", inputs, outputs, view.slices, batch), product.plain, product.adapted)
