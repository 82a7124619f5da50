"""What tests compare the library with: plain NumPy in float64, written without the code under test."""

import numpy as np


def numerical_rank(singular_values, *, rows, columns):
    """Singular values above max(rows, columns) * machine epsilon of the largest, over the last axis."""
    s = np.asarray(singular_values)
    floor = s.max(axis=-1, keepdims=True, initial=0.0) * max(rows, columns) * np.finfo(np.float32).eps
    return np.sum(s > floor, axis=-1)


def product_bound(a, b, a_new, b_new):
    """`|dA|_F |B|_2 + |A'|_2 |dB|_F`, of updates `a @ b.T` and `a_new @ b_new.T`."""
    return np.linalg.norm(a - a_new) * np.linalg.norm(b, 2) + np.linalg.norm(a_new, 2) * np.linalg.norm(b - b_new)
