"""What the leading directions of a stack of random columns capture of each, in closed form.

Let u_1, ..., u_n be independent random unit vectors in R^d and X = [sqrt(s_1) u_1, ..., sqrt(s_n) u_n]. With P the
projection on the k leading left singular vectors of X, E[u_i.T P u_i] depends on s_i alone as d grows. Nothing of size
(d, n) is drawn for it:

1. The resolvent R(z) = (X X.T - z)^-1 has m(z) = tr R(z) / d with m = -1 / (z - (1/d) sum_i s_i / (1 + s_i m))
   (Marchenko and Pastur 1967, Silverstein 1995). Leaving column i out and putting it back (Sherman and Morrison) gives
   u_i.T R(z) u_i = m / (1 + s_i m).
2. With w = -1 / m this is z = w + (1/d) sum_i s_i w / (w - s_i), and u_i.T R(z) u_i = -1 / (w - s_i). On the real axis
   w = x + i v, and Im z = v (1 - (1/d) sum_i s_i^2 / |w - s_i|^2). So inside the spectrum v(x) > 0 solves

       sum_i s_i^2 / ((x - s_i)^2 + v^2) = d,

   which has one root or none, for v = 0, and the eigenvalue there is
   lambda(x) = x + (1/d) sum_i s_i + (1/d) sum_i s_i^2 (x - s_i) / |w - s_i|^2, which grows with x.
3. The density of eigenvalues is d Im m / pi = (d / pi) v / |w|^2, and that of column i in the eigenvectors is
   Im(u_i.T R u_i) / pi = (1 / pi) v / |w - s_i|^2. Integrated over the eigenvalues above a cut, the first says which k
   the cut stands for, the second what is captured: g(s_i; k) = E[u_i.T P u_i].

Columns of one adapter are orthonormal, not independent, which is a correction of the order of its rank over d.
"""

import numpy as np

from share_jax.annotations import Float, Int

BINS = 32
"""Columns of like size that stand for one population each: as many as keep their shares to about 1 %."""
STEPS = 12
"""Newton's steps for v at most; the function is concave and so close to linear that a few suffice."""
_CIRCLE = np.concatenate([np.cos(np.linspace(0, np.pi, 7)), [-2, -1.4, 1.4, 2]])
"""Where x is sampled about a population, in units of the half width that it has alone."""
_EDGE = np.linspace(0, 1, 17)
_BELOW = np.linspace(0, 1, 81)
"""Below all populations, down past 0: with more columns than rows the spectrum is wide there."""


def captured_shares(squares: Float[np.ndarray, " n"], rows: int, ks: Int[np.ndarray, " K"]) -> Float[np.ndarray, "K n"]:
    """The expected share of every column that the k leading directions of a random stack capture.

    >>> shares = captured_shares(np.full(100, 2.0), 1000, np.array([50, 100]))
    >>> bool(0.6 < shares[0, 0] < 0.8), shares[1, 0].round(6).item()
    (True, 1.0)

    Args:
        squares: squared lengths of the columns; columns of length 0 capture nothing.
        rows: d, the length of a column.
        ks: numbers of directions.
    """
    out = np.zeros((len(ks), len(squares)))
    used = squares > 0
    if not used.any():
        return out
    sizes, weights = _populations(np.asarray(squares, np.float64)[used])
    most = min(int(weights.sum()), rows)
    k, shares = _cumulated(sizes, weights, rows)
    for i, wanted in enumerate(ks):
        if wanted >= most:
            out[i, used] = 1
            continue
        # between two eigenvalues both grow alike
        at = np.array([np.interp(wanted, k, shares[:, j]) for j in range(len(sizes))])
        out[i, used] = np.interp(np.asarray(squares)[used], sizes, at)
    return out


def _populations(squares: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Mean sizes, ascending and distinct, and how many columns each stands for; each holds a like part of the whole."""
    ordered = np.sort(squares) / squares.max()
    place = np.minimum((np.cumsum(ordered) / ordered.sum() * BINS * (1 - 1e-12)).astype(int), BINS - 1)
    _, place = np.unique(place, return_inverse=True)
    weights = np.bincount(place).astype(np.float64)
    sizes = np.bincount(place, ordered) / weights
    distinct, where = np.unique(sizes, return_inverse=True)
    return distinct * squares.max(), np.bincount(where, weights)


def _cumulated(
    sizes: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], rows: int
) -> tuple[Float[np.ndarray, " x"], Float[np.ndarray, "x m"]]:
    """(k, shares) at ever lower cuts: directions above the cut, and what they capture of each population."""
    top = sizes[-1]
    s, share = sizes / top, weights / rows
    reach = np.sqrt(np.sum(share * s**2))  # no x of the spectrum is further from the sizes
    below = _BELOW if share.sum() > 0.5 else _EDGE
    x = (s + np.sqrt(share) * s * _CIRCLE[:, None]).ravel()
    x = np.unique(np.concatenate([x, 1 + reach * _EDGE, s[0] - (reach + s[0]) * below, s]))[::-1]
    gap = (x[:, None] - s) ** 2
    pull = share * s**2
    v2 = np.maximum((pull - gap).max(1), 0)  # below the root: what one population alone asks for
    inside = (v2 > 0) | (np.sum(pull / np.maximum(gap, 1e-300), axis=1) > 1)
    for _ in range(STEPS):  # Newton on 1 / f, concave in v^2, comes to the root from below
        inverse = 1 / np.maximum(gap + v2[:, None], 1e-300)
        f = inverse @ pull
        step = np.where(inside, (f - 1) * f / np.maximum((inverse**2) @ pull, 1e-300), 0)
        v2 = v2 + np.maximum(step, 0)
        if np.all(step <= 1e-5 * v2):
            break
    inverse = 1 / np.maximum(gap + v2[:, None], 1e-300)
    value = x + share @ s + ((x[:, None] - s) * inverse) @ pull
    v = np.sqrt(v2)
    steps = np.maximum(value[:-1] - value[1:], 0)[:, None]
    density = np.concatenate([(v / np.maximum(x**2 + v2, 1e-300))[:, None], v[:, None] * inverse], axis=1)
    sums = np.cumsum((density[:-1] + density[1:]) / 2 * steps, axis=0)
    sums = np.concatenate([np.zeros((1, sums.shape[1])), sums])
    sums /= np.maximum(sums[-1], 1e-300)
    return sums[:, 0] * min(weights.sum(), rows), sums[:, 1:]
