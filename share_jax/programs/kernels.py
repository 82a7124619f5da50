"""What the operations that read a kernel say of it: its inputs, its stacked layers, or why it has no update."""

from collections.abc import Sequence
from dataclasses import dataclass

from share_jax.programs.reading import Use, operations
from share_jax.programs.views import whole_axes


@dataclass(frozen=True)
class KernelUse:
    """How a program uses a kernel.

    Attributes:
        inputs: its axes that are contracted or looked up, ascending; None if no operation says so, or several do not
            say the same.
        stacked: its axes along which scans, or another operand, take one layer each, the outermost first.
        slices: those of them that scans take.
        obstacle: why an update cannot be added to the operations; None if it can.
    """

    inputs: tuple[int, ...] | None
    stacked: tuple[int, ...]
    slices: tuple[int, ...]
    obstacle: str | None


def kernel_use(uses: Sequence[Use], shape: tuple[int, ...]) -> KernelUse:
    """The operations' common answer.

    Args:
        uses: from `reading`.
        shape: the whole kernel's.
    """
    read = sorted(operations(uses), key=lambda use: use.kind != "gather")
    if not read:
        return KernelUse(None, (), (), "a parameter that the output does not depend on")
    others = sorted({use.note for use in read if use.kind == "other"})
    if others:
        return KernelUse(None, (), (), f"a kernel that is no factor of a matrix product: it is read by {others[0]}")
    first = read[0]
    slices = first.view.slices
    batch = whole_axes(first.axes(first.batch), shape)
    inputs = whole_axes(first.axes(first.inputs), shape)
    if inputs is None or batch is None or any(use.view.slices != slices for use in read):
        return KernelUse(None, (), (), "a kernel of which operations take unlike parts")
    stacked = (*slices, *batch)
    wide = {axis for axis in range(len(shape)) if shape[axis] > 1}
    sides = {axis for axis in inputs if axis in wide}, wide - set(inputs) - set(stacked)
    for use in read:
        own = {part.axis for axis in use.axes(use.inputs) for part in axis} & wide
        if own not in sides or (own != sides[0] and use.kind != "dot"):
            return KernelUse(None, (), (), "a kernel that operations contract along unlike axes")
    if any(use.batch for use in read):
        return KernelUse(inputs, stacked, slices, "a kernel of several experts or groups, each with its own inputs")
    custom = "a kernel that is read within a function with derivatives of its own"
    return KernelUse(inputs, stacked, slices, custom if any(use.custom for use in read) else None)


def layer_axes(uses: Sequence[Use], text: str) -> tuple[int, ...] | None:
    """The axes along which a kernel's layers are stacked, as the module that has the kernel sees it.

    Args:
        uses: from `reading`.
        text: of the module's mark.

    Returns:
        The axes that scans and vmaps around the module take, the outermost first; None if the module has no mark, or
        unlike ones: the array that it has is not the kernel.
    """
    found = {
        (*use.view.slices, *(part.axis for axis in use.view.axes[:-1] for part in axis))
        for use in uses
        if use.kind == "mark" and use.note == text
    }
    return found.pop() if len(found) == 1 else None
