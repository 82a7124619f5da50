"""The fewest columns that keep every task within a relative error: one tolerance for all layers and sides.

Projecting both factors of an update W = A B.T on the leading columns of orthonormal bases gives P W Q, an orthogonal
projection of W, so |W - P W Q|_F^2 = |W|_F^2 - |P W Q|_F^2. With coefficients C on the full basis, |P W Q|_F^2 =
<C_a[:k].T C_a[:k], C_b[:k'].T C_b[:k']>: prefix sums of (p, p) matrices give the error at every k at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from share_jax.annotations import Float, Int
from share_jax.errors import LimitError, message
from share_jax.linalg.spectrum import Spectrum
from share_jax.subspace import error_bounds
from share_jax.subspace.state import ShareState, Subspace, leading, relative

TOLERANCES = np.concatenate([np.geomspace(1, 1e-6, 200), [0.0]])
"""Candidates for the tail norm of a side relative to its stack's norm, loosest first; 0 keeps the numerical rank."""

RESERVE = 0.01
"""Share of a limit that cuts leave over: even a merge that keeps every direction loses a rounding's worth."""

TASK_BLOCK = 16


class RankSchedule(NamedTuple):
    """k of each side of one target at every tolerance, or at given sizes; never decreasing."""

    a: Int[np.ndarray, " G"]
    b: Int[np.ndarray, " G"]

    def at(self, step: int) -> tuple[int, int]:
        """(k, k') at one tolerance."""
        return int(self.a[step]), int(self.b[step])


def ranks_by_tolerance(spectrum: Spectrum, total: float | None = None, floor: int = 0) -> Int[np.ndarray, " G"]:
    """k at every tolerance for one stack, at least `floor` and at most the numerical rank.

    `total` is the energy that the tolerance is relative to; what the stack lacks of it counts as lost already.
    """
    energy = spectrum.energy if total is None else total
    squares = np.asarray(spectrum.singular_values, np.float64) ** 2
    tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    # the first k with tail^2 <= (tolerance^2) * energy
    k = len(tails) - np.searchsorted(tails[::-1], TOLERANCES**2 * energy, side="right")
    return np.clip(np.maximum(k, floor), 0, spectrum.rank).astype(np.int64)


def _prefixes(coeff: Float[np.ndarray, "T m p"], k: Int[np.ndarray, " G"]) -> Float[np.ndarray, "T G p p"]:
    """`C[:k].T @ C[:k]` for every k of a schedule."""
    x = np.asarray(coeff, np.float64)
    steps, place = np.unique(k, return_inverse=True)
    out = np.zeros((x.shape[0], len(steps), x.shape[2], x.shape[2]))
    total, start = np.zeros_like(out[:, 0]), 0
    for j, stop in enumerate(steps):
        part = x[:, start:stop]
        total = total + np.swapaxes(part, -1, -2) @ part
        out[:, j], start = total, stop
    return out[:, place]


def squared_errors(
    coeff_a: Float[np.ndarray, "T m p"], coeff_b: Float[np.ndarray, "T mp p"], schedule: RankSchedule
) -> Float[np.ndarray, "T G"]:
    """Squared error of every task's update at every tolerance, from coefficients on the full bases."""
    out = []
    top_a, top_b = np.array([coeff_a.shape[1]]), np.array([coeff_b.shape[1]])
    for start in range(0, coeff_a.shape[0], TASK_BLOCK):
        a, b = coeff_a[start : start + TASK_BLOCK], coeff_b[start : start + TASK_BLOCK]
        full = np.sum(_prefixes(a, top_a) * _prefixes(b, top_b), axis=(-2, -1))
        out.append(full - np.sum(_prefixes(a, schedule.a) * _prefixes(b, schedule.b), axis=(-2, -1)))
    return np.maximum(np.concatenate(out), 0)


def loosest_tolerance(errors: Float[np.ndarray, "T G"], limits: Float[np.ndarray, " T"]) -> int:
    """The first tolerance at which every task's error is within its limit; the last one if there is none."""
    holds = np.all(errors <= limits[:, None], axis=0)
    return int(np.argmax(holds)) if holds.any() else len(TOLERANCES) - 1


def cheapest_cut(
    errors: Float[np.ndarray, "T G"],
    norms: Float[np.ndarray, " T"],
    targets: Float[np.ndarray, " T"] | float,
    cut: Callable[[int], ShareState],
) -> tuple[int, ShareState]:
    """The loosest tolerance whose state has every bound within its target, and that state.

    The curves leave out rounding, so the first tolerance that they allow need not hold: the states' own bounds decide.
    Where none holds it is the last one, with all columns, and the caller says whether that will do.

    Args:
        errors: squared error of every task at every tolerance.
        norms: of the tasks' whole adapters.
        targets: what bounds are held to, relative to the norms.
        cut: makes the state at a tolerance, by its number.
    """
    step = loosest_tolerance(errors, (norms * targets) ** 2)
    state = cut(step)
    while step < len(TOLERANCES) - 1 and not np.all(relative(state, "bound") <= targets):
        step += 1
        state = cut(step)
    return step, state


def cut_within(
    errors: Float[np.ndarray, "T G"], norms: Float[np.ndarray, " T"], max_error: float, cut: Callable[[int], ShareState]
) -> ShareState:
    """The state of the cheapest cut that keeps every task within `max_error`; arguments as of `cheapest_cut`.

    Raises:
        LimitError: not even all columns do.
    """
    _, state = cheapest_cut(errors, norms, max_error * (1 - RESERVE), cut)
    least = float(np.max(relative(state, "bound"), initial=0.0))
    if not least <= max_error:
        expected = f"at least {1.1 * least:.1e}, which all columns can be proven to keep in float32"
        raise LimitError(message("max_error", got=max_error, expected=expected, fix="ask for that or more"))
    return state


def flat_curve(layer: Subspace, schedule: RankSchedule) -> np.ndarray:
    """Squared error at every tolerance for vectors, where no projection of the update helps: by reconstruction."""
    out = np.zeros((layer.coeff_a.shape[0], len(schedule.a)))
    full = layer.factor("a", slice(None)), layer.factor("b", slice(None))
    seen: dict[tuple[int, int], np.ndarray] = {}
    for g, (ka, kb) in enumerate(zip(schedule.a, schedule.b, strict=True)):
        key = (int(ka), int(kb))
        if key not in seen:
            cut = leading(layer, *key)
            seen[key] = error_bounds.squared_change(*full, cut.factor("a", slice(None)), cut.factor("b", slice(None)))
        out[:, g] = seen[key]
    return out
