"""What the operations that read a kernel of a Linen model say of it together, or why it has no update."""

from dataclasses import dataclass

from share_jax.traced.discover import Reading
from share_jax.traced.visitor import CHANGED

UNREAD = "a parameter that the example call does not reach"
UNUSED = "a parameter that the output does not depend on"
"""Why no update of a parameter could be learnt."""


@dataclass(frozen=True)
class KernelUse:
    """How a program uses a kernel.

    Attributes:
        inputs: its axes that are contracted or looked up, ascending; None if no operation says so, or several do not
            say the same.
        stacked: its axes along which scans, indices, or another operand, take one layer each, the outermost first.
        slices: those of them that scans and indices take.
        obstacle: why an update cannot be added to the operations; None if it can.

    Example:
        >>> import jax.numpy as jnp
        >>> from share_jax.traced.discover import readings
        >>> found = readings(lambda kernels: jnp.ones((2, 6)) @ kernels["w"], {"w": jnp.ones((6, 4))})
        >>> kernel_use(found["w"], (6, 4))
        KernelUse(inputs=(0,), stacked=(), slices=(), obstacle=None)
    """

    inputs: tuple[int, ...] | None
    stacked: tuple[int, ...]
    slices: tuple[int, ...]
    obstacle: str | None


def kernel_use(reading: Reading, shape: tuple[int, ...]) -> KernelUse:
    """The operations' common answer.

    Args:
        reading: from `readings`.
        shape: the whole kernel's.

    Example:
        >>> import jax.numpy as jnp
        >>> from share_jax.traced.discover import readings
        >>> found = readings(lambda kernels: kernels["scale"] ** 2, {"scale": jnp.ones((6, 4))})
        >>> kernel_use(found["scale"], (6, 4)).obstacle
        'a kernel that is no factor of a matrix product: it is read by ...'
    """
    read = [*reading.layers, *(use for use in reading.uses if use.kind == "other")]
    if not read:
        return KernelUse(None, (), (), UNUSED)
    others = sorted({use.note for use in read if use.note})
    if others:
        return KernelUse(None, (), (), f"a kernel that is no factor of a matrix product: it is read by {others[0]}")
    slices, batch, inputs = read[0].slices, read[0].batch, tuple(sorted(read[0].inputs))
    if any(use.kind == "other" or use.slices != slices for use in read):
        return KernelUse(None, (), (), "a kernel of which operations take unlike parts")
    stacked = (*slices, *batch)
    if not inputs or len(inputs) + len(stacked) == len(shape):
        return KernelUse(None, (), (), "a product with a vector")
    wide = {axis for axis in range(len(shape)) if shape[axis] > 1}
    sides = wide & set(inputs), wide - set(inputs) - set(stacked)
    for use in read:
        own = wide & set(use.inputs)
        if own not in sides or (own != sides[0] and use.kind != "product"):
            return KernelUse(None, (), (), "a kernel that operations contract along unlike axes")
    if any(use.batch for use in read):
        return KernelUse(inputs, stacked, slices, "a kernel of several experts or groups, each with its own inputs")
    custom = "a kernel that is read within a function with derivatives of its own"
    return KernelUse(inputs, stacked, slices, custom if any(use.custom for use in read) else None)


def layer_axes(reading: Reading, text: str) -> tuple[int, ...] | None:
    """The axes along which a kernel's layers are stacked, as the module that has the kernel sees it.

    Args:
        reading: from `readings`.
        text: of the module's mark.

    Returns:
        The axes that scans and vmaps around the module take, the outermost first; None if the module has no mark, or
        unlike ones, or one of a changed kernel: the array that it has is not the kernel.
    """
    found = {use.stacked for use in reading.uses if use.kind == "mark" and use.note == text}
    changed = any(use.kind == "mark" and use.note == f"{text}{CHANGED}" for use in reading.uses)
    return found.pop() if len(found) == 1 and not changed else None
