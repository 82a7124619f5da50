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


def leading_basis(stacks: Float[np.ndarray, "L d n"], *, k: int, seed: int = 0) -> Leading:
    """The leading part of every stack's thin SVD by a few thin products, for whoever wants `k` columns.

    Range finder on a Gaussian test matrix with subspace iterations, orthonormal columns before every product, then the
    SVD of the small projection (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1), of which a QR decomposition
    leaves LAPACK a small core. It gives `OVERSAMPLE` columns more than are wanted, or as many as there are: drop those,
    they are the inaccurate ones. float64 stays float64, all else is taken in float32.
    """
    dtype = np.float64 if stacks.dtype == np.float64 else np.float32
    width = min(k + OVERSAMPLE, *stacks.shape[1:])
    test = np.random.default_rng(seed).standard_normal((stacks.shape[2], width), dtype)

    def one(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = stack.astype(dtype, copy=False)
        q = np.linalg.qr(x @ test)[0]
        for _ in range(POWER_ITERATIONS):
            q = np.linalg.qr(x @ np.linalg.qr(x.T @ q)[0])[0]
        core = np.asarray(np.linalg.qr(x.T @ q, mode="r"))
        small, s, _ = np.linalg.svd(core.T, full_matrices=False)
        return q @ small, s

    found = each(one, list(stacks))
    return Leading(*(np.stack(x) for x in zip(*found, strict=True)))
