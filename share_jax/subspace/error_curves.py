"""The fewest columns that keep every task within a relative error: one tolerance for all layers and sides.

Projecting both factors of an update W = A B.T on the leading columns of orthonormal bases gives P W Q, an orthogonal
projection of W, so |W - P W Q|_F^2 = |W|_F^2 - |P W Q|_F^2. With coefficients C on the full basis, |P W Q|_F^2 =
<C_a[:k].T C_a[:k], C_b[:k'].T C_b[:k']>: prefix sums of (p, p) matrices give the error at every k at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from share_jax.linalg.spectrum import Spectrum
from share_jax.subspace import error_bounds
from share_jax.subspace.state import Subspace

TOLERANCES = np.concatenate([np.geomspace(1, 1e-6, 200), [0.0]])
"""Candidates for the tail norm of a side relative to its stack's norm, loosest first; 0 keeps the numerical rank."""

RESERVE = 0.01
"""Share of a limit that cuts leave over: even a merge that keeps every direction loses a rounding's worth."""

TASK_BLOCK = 16


class Ladder(NamedTuple):
    """k of each side of one target at every tolerance; never decreasing."""

    a: Int[np.ndarray, " G"]
    b: Int[np.ndarray, " G"]


def rungs(spectrum: Spectrum, total: float | None = None, floor: int = 0) -> Int[np.ndarray, " G"]:
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
    """`C[:k].T @ C[:k]` for every k of the ladder."""
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
    coeff_a: Float[np.ndarray, "T m p"], coeff_b: Float[np.ndarray, "T mp p"], ladder: Ladder
) -> Float[np.ndarray, "T G"]:
    """Squared error of every task's update at every rung, from coefficients on the full bases."""
    out = []
    top_a, top_b = np.array([coeff_a.shape[1]]), np.array([coeff_b.shape[1]])
    for start in range(0, coeff_a.shape[0], TASK_BLOCK):
        a, b = coeff_a[start : start + TASK_BLOCK], coeff_b[start : start + TASK_BLOCK]
        full = np.sum(_prefixes(a, top_a) * _prefixes(b, top_b), axis=(-2, -1))
        out.append(full - np.sum(_prefixes(a, ladder.a) * _prefixes(b, ladder.b), axis=(-2, -1)))
    return np.maximum(np.concatenate(out), 0)


def first_rung(errors: Float[np.ndarray, "T G"], limit: Float[np.ndarray, " T"]) -> int | None:
    """The loosest tolerance at which no task's error is above its limit; None if there is none."""
    holds = np.all(errors <= limit[:, None], axis=0)
    return int(np.argmax(holds)) if holds.any() else None


def steps(
    errors: Float[np.ndarray, "T G"], norms: Float[np.ndarray, " T"], limit: float
) -> Iterator[tuple[int, float]]:
    """Rungs that may hold a relative error of `limit`, loosest first, each with what its measured error is held to.

    The curves leave out rounding, so the first rung need not hold. Cuts leave `RESERVE` over; all columns, the last
    rung, do not.
    """
    aim, last = limit * (1 - RESERVE), len(TOLERANCES) - 1
    rung = first_rung(errors, (norms * aim) ** 2)
    for step in range(last if rung is None else rung, last + 1):
        yield step, aim if step < last else limit


def widest(ladders: Mapping[str, Ladder], rung: int) -> int:
    """The largest k of any side at one rung: what a refusal says would be needed."""
    return max((int(max(x.a[rung], x.b[rung])) for x in ladders.values()), default=0)


def flat_curve(layer: Subspace, ladder: Ladder) -> np.ndarray:
    """Squared error at every rung for vectors, where no projection of the update helps: by reconstruction."""
    out = np.zeros((layer.coeff_a.shape[0], len(TOLERANCES)))
    full = layer.factor("a", slice(None)), layer.factor("b", slice(None))
    seen: dict[tuple[int, int], np.ndarray] = {}
    for g, (ka, kb) in enumerate(zip(ladder.a, ladder.b, strict=True)):
        key = (int(ka), int(kb))
        if key not in seen:
            cut = replace(
                layer,
                basis_a=layer.basis_a[:, : key[0]],
                basis_b=layer.basis_b[:, : key[1]],
                coeff_a=layer.coeff_a[:, : key[0]],
                coeff_b=layer.coeff_b[:, : key[1]],
            )
            seen[key] = error_bounds.squared_change(*full, cut.factor("a", slice(None)), cut.factor("b", slice(None)))
        out[:, g] = seen[key]
    return out
