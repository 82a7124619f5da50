"""How a layer's kernel is seen as a matrix."""

import math


def matrix_shape(shape: tuple[int, ...], in_axes: int) -> tuple[int, int]:
    """(d_in, d_out) of a kernel, the first `in_axes` of whose axes are inputs.

    >>> matrix_shape((384, 12, 32), 1), matrix_shape((12, 32, 384), 2), matrix_shape((3, 3, 16, 32), 3)
    ((384, 384), (384, 384), (144, 32))
    """
    return math.prod(shape[:in_axes]), math.prod(shape[in_axes:])
