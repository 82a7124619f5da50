"""A kernel on its way through a traced program: which of its axes lie where, after casts, transposes and reshapes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from share_jax.layers.stored_kernel import are_codes
from share_jax.typing import Array


class Piece(NamedTuple):
    """A part of one of a kernel's axes: of index i the digit (i // stride) % size.

    Attributes:
        axis: of the kernel.
        size: values that the digit takes.
        stride: how far apart they are.
    """

    axis: int
    size: int
    stride: int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KernelView:
    """A value of the program that is a kernel with its elements in another order, in another dtype, or scaled.

    It is a tree, so that loops can carry it: all of its arrays have the axis of the layers in front while there is one.

    Attributes:
        value: as the program has it.
        shared: the target's shared leaves.
        slot: the target's leaves of one task.
        scale: what the program has multiplied the kernel by; None if by nothing.
        path: of the kernel.
        shape: of the kernel.
        axes: for each axis of `value` the pieces of the kernel's axes that it is made of, the slowest first.
        slices: the kernel's axes of which this place sees one layer, by a loop or an index, the outermost first.
        stored: whether it is the kernel's values, "codes" of a quantised one, or what they were "decoded" to.
    """

    value: Array
    shared: Mapping[str, Array]
    slot: Mapping[str, Array]
    scale: Array | None = None
    path: str = field(default="", metadata={"static": True})
    shape: tuple[int, ...] = field(default=(), metadata={"static": True})
    axes: tuple[tuple[Piece, ...], ...] = field(default=(), metadata={"static": True})
    slices: tuple[int, ...] = field(default=(), metadata={"static": True})
    stored: Literal["values", "codes", "decoded"] = field(default="values", metadata={"static": True})

    def transposed(self, value: Array, permutation: tuple[int, ...]) -> "KernelView":
        """After a transpose."""
        return replace(self, value=value, axes=tuple(self.axes[axis] for axis in permutation))

    def reshaped(self, value: Array) -> "KernelView | None":
        """After a reshape; None if that cuts an axis where it cannot be followed."""
        axes = regrouped([piece for axis in self.axes for piece in axis], value.shape)
        return None if axes is None else replace(self, value=value, axes=axes)

    def without(self, value: Array, dropped: tuple[int, ...]) -> "KernelView":
        """After axes of length 1 are dropped."""
        return replace(self, value=value, axes=tuple(own for i, own in enumerate(self.axes) if i not in dropped))

    def widened(self, value: Array, axis: int) -> "KernelView":
        """With an axis of length 1 more."""
        return replace(self, value=value, axes=(*self.axes[:axis], (), *self.axes[axis:]))

    def layer(self) -> "KernelView | None":
        """What the body of a loop over the first axis sees; None if that is no whole axis of the kernel.

        The value is still that of all layers: the loop itself takes one of them.
        """
        first, *rest = self.axes
        one = len(first) == 1 and first[0].size == self.shape[first[0].axis] and self.scale is None
        return replace(self, axes=tuple(rest), slices=(*self.slices, first[0].axis)) if one else None

    def one_of(self, axis: int, index: int) -> "KernelView | None":
        """What a slice of one index sees, with the leaves of that layer; None if that is no whole axis of the kernel.

        The value is still that of all layers.
        """
        own = self.axes[axis]
        whole = len(own) == 1 and own[0].size == self.shape[own[0].axis]
        if not whole or self.scale is not None or self.stored != "values":
            return None
        taken = {name: leaf[index] if leaf.ndim else leaf for name, leaf in self.shared.items()}
        of_slot = {name: leaf[index] if leaf.ndim else leaf for name, leaf in self.slot.items()}
        axes = tuple(() if at == axis else pieces for at, pieces in enumerate(self.axes))
        return replace(self, shared=taken, slot=of_slot, axes=axes, slices=(*self.slices, own[0].axis))

    def layers(self) -> "KernelView":
        """The inverse of `layer`."""
        *outer, axis = self.slices
        return replace(self, axes=((Piece(axis, self.shape[axis], 1),), *self.axes), slices=tuple(outer))

    def pieces(self, axes: Sequence[int]) -> list[Piece]:
        """The parts of the kernel's axes that these axes of the view are made of."""
        return [piece for axis in axes for piece in self.axes[axis]]

    def whole(self, axes: Sequence[int]) -> tuple[int, ...] | None:
        """The kernel's axes that these axes of the view run through, ascending; None if they take a part of one."""
        sizes: dict[int, int] = {}
        for piece in self.pieces(axes):
            sizes[piece.axis] = sizes.get(piece.axis, 1) * piece.size
        return tuple(sorted(sizes)) if all(size == self.shape[axis] for axis, size in sizes.items()) else None


def view_of(path: str, kernel: Array, shared: Mapping[str, Array], slot: Mapping[str, Array]) -> KernelView:
    """A kernel as its tree holds it; of a quantised one the codes."""
    axes = tuple((Piece(axis, size, 1),) for axis, size in enumerate(kernel.shape))
    stored = "codes" if are_codes(kernel) else "values"
    return KernelView(kernel, shared, slot, path=path, shape=tuple(kernel.shape), axes=axes, stored=stored)


def regrouped(pieces: list[Piece], shape: tuple[int, ...]) -> tuple[tuple[Piece, ...], ...] | None:
    """The pieces as the axes of an array of this shape, cut where that is needed; None if a cut does not divide.

    >>> regrouped([Piece(0, 8, 1)], (2, 4))
    ((Piece(axis=0, size=2, stride=4),), (Piece(axis=0, size=4, stride=1),))
    """
    left, axes = list(pieces), []
    for size in shape:
        own: list[Piece] = []
        need = size
        while need > 1 or (left and left[0].size == 1 and not own):
            if not left:
                return None
            piece = left.pop(0)
            if need % piece.size == 0:
                own.append(piece)
                need //= piece.size
            elif piece.size % need == 0:
                rest = piece.size // need
                own.append(Piece(piece.axis, need, piece.stride * rest))
                left.insert(0, Piece(piece.axis, rest, piece.stride))
                need = 1
            else:
                return None
        axes.append(tuple(own))
    if any(piece.size > 1 for piece in left):
        return None
    return tuple(axes)


def canonical(pieces: list[Piece], order: tuple[int, ...]) -> list[int]:
    """The positions of pieces when they are sorted as the kernel's axes are in `order`, the slowest piece first."""
    return sorted(range(len(pieces)), key=lambda i: (order.index(pieces[i].axis), -pieces[i].stride))


def to_side(x: Array, axes: int, pieces: list[Piece], order: tuple[int, ...]) -> Array:
    """The last `axes` axes of x, made of these pieces, as one axis in the order of the kernel's own.

    Args:
        x: (..., *sizes of axes that the pieces make)
        axes: how many.
        pieces: of those axes, from left to right.
        order: the kernel's axes that the result runs over.

    Returns:
        (..., product of the sizes)
    """
    ahead = x.shape[: x.ndim - axes]
    moved = x.reshape(*ahead, *(piece.size for piece in pieces))
    places = [len(ahead) + i for i in canonical(pieces, order)]
    moved = jnp.transpose(moved, (*range(len(ahead)), *places))
    return moved.reshape(*ahead, math.prod(piece.size for piece in pieces))


def from_side(y: Array, sizes: tuple[int, ...], pieces: list[Piece], order: tuple[int, ...]) -> Array:
    """The inverse of `to_side` on the last axis of y.

    Args:
        y: (..., d)
        sizes: of the axes that the pieces make.
        pieces: of those axes, from left to right.
        order: the kernel's axes that d runs over.

    Returns:
        (..., *sizes)
    """
    ahead = y.shape[:-1]
    places = canonical(pieces, order)
    split = y.reshape(*ahead, *(pieces[i].size for i in places))
    back = [len(ahead) + places.index(i) for i in range(len(pieces))]
    return jnp.transpose(split, (*range(len(ahead)), *back)).reshape(*ahead, *sizes)
