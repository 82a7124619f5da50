"""Zeros up to a common size, where arrays of several sizes are stored or computed as one."""

import numpy as np


def pad(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """`x` with zeros appended along `axis` up to `size`; `x` itself if it has that size.

    >>> pad(np.ones((1, 2)), 1, 3).tolist()
    [[1.0, 1.0, 0.0]]
    """
    if x.shape[axis] == size:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return np.pad(x, widths)
