"""How far a change of bases moves the tasks that were there: measured in float64, added to what is proven."""

import numpy as np

from share_jax.annotations import Float
from share_jax.subspace import error_bounds
from share_jax.subspace.projection import TaskCoefficients, reconstruct, slots_of
from share_jax.subspace.state import Subspace

TASK_BLOCK = 16


def moved(
    old: Subspace, basis_a: np.ndarray, basis_b: np.ndarray, coeff_a: np.ndarray, coeff_b: np.ndarray
) -> TaskCoefficients:
    """The old tasks on the new bases: their change is measured, their bound grows by it."""
    new = (basis_a, basis_b), (coeff_a, coeff_b)
    if old.geometry == "columns":
        squared = change_of_columns((old.basis_a, old.basis_b), (old.coeff_a, old.coeff_b), *new)
    else:
        squared = change_of_flat(old, *new)
    change = np.sqrt(squared)
    scale = np.sqrt(
        np.sum(coeff_a.astype(np.float64) ** 2, (-2, -1)) * np.sum(coeff_b.astype(np.float64) ** 2, (-2, -1))
    )
    # differences are taken before squaring, so float64 rounding is all there is to cover
    bound = old.bound + change * (1 + 1e-9) + 1e-12 * scale
    return slots_of(old)._replace(coeff_a=coeff_a, coeff_b=coeff_b, change=change, bound=bound)


def change_of_columns(
    old_bases: tuple[np.ndarray, np.ndarray],
    old_coeffs: tuple[np.ndarray, np.ndarray],
    new_bases: tuple[np.ndarray, np.ndarray],
    new_coeffs: tuple[np.ndarray, np.ndarray],
) -> Float[np.ndarray, " T"]:
    """Squared change of every task's update from (U, c) to (V, c'), in float64, at a cost without d per task.

    With R = V.T U (in float64), D = U - V R and e = c' - R c (what the rotation's rounding left), the factor is
    U c = V c' + D c - V e: all Gram matrices follow from one of [D, V] per side.
    """
    grams = []
    for u, c, v, cn in zip(old_bases, old_coeffs, new_bases, new_coeffs, strict=True):
        u, c, v, cn = (np.asarray(x, np.float64) for x in (u, c, v, cn))
        r = v.T @ u
        w = np.concatenate([u - v @ r, v], axis=1)
        w = w.T @ w
        d = np.concatenate([c, -(cn - r @ c)], axis=1)  # dA = A - A'
        now = np.concatenate([np.zeros_like(c), cn], axis=1)  # A'
        grams.append((w, d, now))
    (wa, da, a), (wb, db, b) = grams
    before = b + db  # B = B' + dB
    return error_bounds.from_grams(
        dada=_form(wa, da, da),
        bb=_form(wb, before, before),
        daa=_form(wa, da, a),
        bdb=_form(wb, before, db),
        aa=_form(wa, a, a),
        dbdb=_form(wb, db, db),
    )


def _form(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2) @ (w @ y)


def change_of_flat(
    old: Subspace, bases: tuple[np.ndarray, np.ndarray], coeffs: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, " T"]:
    """The same for the flat geometry, a few tasks at a time: its factors are no products of small matrices."""
    out = [np.zeros(0)]
    for start in range(0, len(old.ranks), TASK_BLOCK):
        now = slice(start, start + TASK_BLOCK)
        before, after = [], []
        for side, (u, c) in enumerate(((old.basis_a, old.coeff_a), (old.basis_b, old.coeff_b))):
            before.append(reconstruct(u, c[now], old, side, old.ranks[now]))
            after.append(reconstruct(bases[side], coeffs[side][now], old, side, old.ranks[now]))
        out.append(error_bounds.squared_change(*before, *after))
    return np.concatenate(out)
