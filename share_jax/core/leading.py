"""The leading directions of large stacks, on the host: nothing is compiled, each stack by itself."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from share_jax.core.parallel import each

OVERSAMPLE = 16
POWER_ITERATIONS = 4


class Leading(NamedTuple):
    """Left singular vectors and singular values, largest first."""

    basis: Float[np.ndarray, "L d w"]
    singular_values: Float[np.ndarray, "L w"]


def leading_basis(
    stacks: Float[np.ndarray, "L d n"], *, width: int, seed: int = 0, power_iterations: int = POWER_ITERATIONS
) -> Leading:
    """The leading part of every stack's thin SVD, `width` columns or as many as there are, by a few thin products.

    Range finder on a Gaussian test matrix with subspace iterations, orthonormal columns before every product, then the
    SVD of the small projection (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1), of which a QR decomposition
    leaves LAPACK a (width, width) core. Ask for a few more columns than are wanted (`OVERSAMPLE`) and drop the last
    ones: those are the inaccurate ones. float64 stays float64, all else is taken in float32.
    """
    dtype = np.float64 if stacks.dtype == np.float64 else np.float32
    width = min(width, *stacks.shape[1:])
    test = np.random.default_rng(seed).standard_normal((stacks.shape[2], width), dtype)

    def one(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = stack.astype(dtype, copy=False)
        q = np.linalg.qr(x @ test)[0]
        for _ in range(power_iterations):
            q = np.linalg.qr(x @ np.linalg.qr(x.T @ q)[0])[0]
        core = np.asarray(np.linalg.qr(x.T @ q, mode="r"))
        small, s, _ = np.linalg.svd(core.T, full_matrices=False)
        return q @ small, s

    found = each(one, list(stacks))
    return Leading(*(np.stack(x) for x in zip(*found, strict=True)))
