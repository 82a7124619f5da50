"""A kernel on its way through a program: what its axes have become."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple


class Part(NamedTuple):
    """A part of one axis of a kernel: all of the axis, until a reshape splits it.

    Attributes:
        axis: of the kernel.
        stride: elements of the axis from one entry of the part to the next.
        size: entries.
    """

    axis: int
    stride: int
    size: int


Axis = tuple[Part, ...]
"""One axis of a view: the parts that it runs through, the slowest first; none for an axis that a reshape added."""


@dataclass(frozen=True)
class View:
    """A kernel, or what casts, transposes and reshapes have made of it.

    Attributes:
        leaf: which of the program's inputs it is.
        axes: of the view.
        slices: axes of the kernel of which scans around this place take one slice, the outermost first.
    """

    leaf: int
    axes: tuple[Axis, ...]
    slices: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(part.size for part in axis) for axis in self.axes)

    def transposed(self, order: Sequence[int]) -> "View":
        """The view with its axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def sliced(self) -> "View | None":
        """One slice of the first axis, as the body of a scan sees it; None if that is no whole axis of the kernel."""
        first, *rest = self.axes
        if len(first) != 1 or first[0].stride != 1 or any(part.axis == first[0].axis for axis in rest for part in axis):
            return None
        return View(self.leaf, tuple(rest), (*self.slices, first[0].axis))

    def reshaped(self, shape: Sequence[int]) -> "View | None":
        """The view in another shape; None if that cuts an axis into parts that are none."""
        todo = [part for axis in self.axes for part in axis]
        made: list[Axis] = []
        for size in shape:
            own: list[Part] = []
            have = 1
            while todo and (have < size or (size == 1 and not own and todo[0].size == 1)):
                part = todo.pop(0)
                need = size // have
                if part.size > need:
                    if size % have or part.size % need:
                        return None
                    inner = part.size // need
                    todo.insert(0, Part(part.axis, part.stride, inner))
                    part = Part(part.axis, part.stride * inner, need)
                have *= part.size
                own.append(part)
            if have != size:
                return None
            made.append(tuple(own))
        if any(part.size > 1 for part in todo):
            return None
        if todo and made:
            made[-1] += tuple(todo)
        return replace(self, axes=tuple(made))


def whole(leaf: int, shape: Sequence[int]) -> View:
    """A kernel as it comes in.

    Example:
        >>> view = whole(0, (2, 3, 8)).reshaped((6, 8)).transposed((1, 0))
        >>> view.shape, [[part.axis for part in axis] for axis in view.axes]
        ((8, 6), [[2], [0, 1]])
    """
    return View(leaf, tuple((Part(axis, 1, size),) for axis, size in enumerate(shape)))


def whole_axes(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[int, ...] | None:
    """The kernel's axes that these axes of a view run through, ascending; None if they run through a part of one.

    Args:
        axes: of a view.
        shape: the kernel's.
    """
    sizes: dict[int, int] = {}
    for axis in axes:
        for part in axis:
            sizes[part.axis] = sizes.get(part.axis, 1) * part.size
    return tuple(sorted(sizes)) if all(size == shape[axis] for axis, size in sizes.items()) else None


def in_order(axes: Sequence[Axis]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How an array whose axes are these is brought into the kernel's own order.

    Returns:
        Its shape with an axis for each part, and the transpose that sorts the parts as the kernel has them.
    """
    parts = [part for axis in axes for part in axis]
    order = sorted(range(len(parts)), key=lambda at: (parts[at].axis, -parts[at].stride))
    return tuple(part.size for part in parts), tuple(order)
