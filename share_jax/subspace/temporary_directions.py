"""The directions that train while one task is learnt with data (method, phase 2)."""

import numpy as np
from jaxtyping import Float

from share_jax.errors import InputError, message
from share_jax.subspace.state import Subspace


def temporary(basis: Float[np.ndarray, "d k"], phi: int) -> Float[np.ndarray, "d phi"]:
    """A copy of the top `phi` columns of a basis, to train while the basis itself stays as it is.

    Args:
        basis: orthonormal columns, the most important first.
        phi: columns that are copied.

    Raises:
        InputError: `phi` is not between 1 and k.

    Source: "Shared LoRA Subspaces for almost Strict Continual Learning", Kaushik et al. 2026 (arXiv 2602.06043), its
    second phase.

    >>> basis = np.eye(4)[:, :3]
    >>> temporary(basis, 2)[0] *= 7
    >>> basis[0].tolist()
    [1.0, 0.0, 0.0]
    """
    if not 1 <= phi <= basis.shape[1]:
        expected = f"1 to k = {basis.shape[1]}"
        raise InputError(message("phi", got=phi, expected=expected, fix="the method takes at most k / 4"))
    return np.array(basis[:, :phi])


def temporary_leaves(layer: Subspace, phi: int) -> dict[str, Float[np.ndarray, "_ phi"]]:
    """The temporary directions of both sides of a target; none of a side whose basis has fewer than `phi` columns."""
    bases = {"basis_a": layer.basis_a, "basis_b": layer.basis_b}
    return {name: temporary(basis, phi) for name, basis in bases.items() if basis.shape[1] >= phi}
