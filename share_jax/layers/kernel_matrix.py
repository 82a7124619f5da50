"""How a layer's kernel is seen as a matrix."""

import math

from share_jax.typing import AnyArray


def matrix_shape(shape: tuple[int, ...], in_axes: int) -> tuple[int, int]:
    """(d_in, d_out) of a kernel, the first `in_axes` of whose axes are inputs.

    >>> matrix_shape((384, 12, 32), 1), matrix_shape((12, 32, 384), 2), matrix_shape((3, 3, 16, 32), 3)
    ((384, 384), (384, 384), (144, 32))
    """
    return math.prod(shape[:in_axes]), math.prod(shape[in_axes:])


def as_kernel(matrix: AnyArray, shape: tuple[int, ...], order: tuple[int, ...]) -> AnyArray:
    """A matrix (d_in, d_out) as the kernel that it was seen from.

    Args:
        matrix: (d_in, d_out)
        shape: of the kernel.
        order: the kernel's axes, inputs first: by it, a transpose of the kernel has the matrix's elements in order.

    Returns:
        An array of `shape`.
    """
    moved = matrix.reshape(tuple(shape[axis] for axis in order))
    if order == tuple(range(len(shape))):
        return moved
    return moved.transpose(tuple(order.index(axis) for axis in range(len(shape))))
