"""The directions that train while one task is learnt with data (method, phase 2)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from share_jax.annotations import Float
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


def last_task_leaves(layer: Subspace, fresh: Mapping[str, ArrayLike], scale: float) -> dict[str, np.ndarray]:
    """Temporary directions and coefficients that make up the last task's update: a new task starts from it.

    With the singular value decomposition of the task's core, `coeff_a @ coeff_b.T = U S V.T`, the directions are
    `basis_a @ U` and `basis_b @ V`. The factor `S / scale` is shared so that entries of directions and coefficients are
    of one size, v: `v^4 sqrt(d_in d_out) = S / scale`. Adam moves all entries alike; directions of length one would
    turn by much in each step, and the update with them. Columns without a singular value keep `fresh` coefficients on
    the first side and zeros on the other, so that they can learn.

    Args:
        layer: what has been learnt of a target, at least one task of it.
        fresh: of the target, as `ShareAdapt` draws them: `basis_a` (d_in, phi), `basis_b` (d_out, phi), `coeff_a` and
            `coeff_b` (phi, p).
        scale: by which the update is multiplied while it is learnt.

    Returns:
        The same leaves; the largest phi singular values of the update are kept.
    """
    out = {name: np.array(leaf) for name, leaf in fresh.items()}
    u, values, vt = np.linalg.svd(layer.coeff_a[-1].astype(np.float64) @ layer.coeff_b[-1].astype(np.float64).T)
    kept = min(int(np.sum(values > 1e-6 * values.max(initial=0.0))), *out["coeff_a"].shape)
    size = (values[:kept] / scale / np.sqrt(np.prod([float(d) for d in layer.shape]))) ** 0.25
    for name, basis, turn in (("basis_a", layer.basis_a, u), ("basis_b", layer.basis_b, vt.T)):
        columns = (basis @ turn)[:, : out[name].shape[1]]
        columns[:, :kept] *= size * np.sqrt(len(basis))
        out[name][:, : columns.shape[1]] = columns
    out["coeff_a"][:, :kept] = 0
    for name in ("coeff_a", "coeff_b"):
        out[name][:kept, :kept] = np.diag(size)
    return out
