"""The leading directions of a large stack, on the host: nothing is compiled."""

import functools

import numpy as np
from jaxtyping import Float

OVERSAMPLE = 16
POWER_ITERATIONS = 4
SHIFT = 1e-13
"""Added to a Gram matrix's diagonal, relative to its trace: its root is where float32's rounding is."""
LEAST = 0.01
"""Squared length, after the shift, below which a column of a basis is rounding."""
STEADY, FORESEEN, RESOLVED = 1e-4, 1e-6, 1e-6
"""Iterations end when one takes less than the first share off the energy that k columns miss, or the next is to take
less than the second; float32 tells it from rounding where it is more than the third share of all."""

Stack = Float[np.ndarray, "d n"]
Thin = Float[np.ndarray, "rows w"]
Pair = tuple[Float[np.ndarray, "d w"], Float[np.ndarray, " w"]]


def leading_basis(stack: Stack, *, k: int, seed: int = 0, energy: float | None = None) -> Pair:
    """The leading left singular vectors and singular values of a stack by a few thin products, for who wants `k`.

    Range finder on a Gaussian test matrix with subspace iterations, then the SVD of the small projection (Halko,
    Martinsson and Tropp 2011, algorithms 4.4 and 5.1). It gives `OVERSAMPLE` columns more than are wanted, or as many
    as there are: drop those, they are the inaccurate ones. float64 stays float64, all else is taken in float32, where
    columns above the stack's rank are zero. `energy` is the stack's squared norm, where it is known.
    """
    if stack.dtype != np.float64:
        if energy is None:
            energy = float(np.einsum("dn,dn->", stack, stack, dtype=np.float64))
        size = energy**0.5
        if 1e-15 < size < 1e15 or not size:
            return _in_float32(stack.astype(np.float32, copy=False), _test(stack, k, seed, np.float32), k, energy)
        unit = (stack.astype(np.float64) / size).astype(np.float32)  # or products would leave float32's range
        basis, values = leading_basis(unit, k=k, seed=seed)
        return basis, (values * size).astype(np.float32)
    y = stack @ _test(stack, k, seed, np.float64)
    for _ in range(POWER_ITERATIONS):
        y = stack @ _qr(stack.T @ _qr(y))
    q = _qr(y)
    _, values, turn = np.linalg.svd(stack.T @ q, full_matrices=False)
    return q @ turn.T, values


def leading_eigenvectors(gram: Float[np.ndarray, "d d"], *, k: int, seed: int = 0) -> Pair:
    """The same of a stack X from its X @ X.T in float64: eigenvectors, and eigenvalues, which are squares."""
    y = gram @ _test(gram, k, seed, np.float64)
    for _ in range(POWER_ITERATIONS):
        y = gram @ _qr(y)
    q = _qr(y)
    values, turn = np.linalg.eigh(q.T @ (gram @ q))
    return q @ turn[:, ::-1], np.maximum(values[::-1], 0)


def _test(x: np.ndarray, k: int, seed: int, dtype: type[np.floating]) -> Thin:
    width = min(k + OVERSAMPLE, *x.shape)
    return _normal(seed, x.shape[1], width).astype(dtype, copy=False)


@functools.lru_cache(maxsize=4)
def _normal(seed: int, rows: int, width: int) -> Thin:
    """The layers of a model are of few shapes: what is drawn for one serves them all. Not to be written to."""
    return np.random.default_rng(seed).standard_normal((rows, width))


def _qr(y: Thin) -> Thin:
    return np.linalg.qr(y)[0]


def _in_float32(x: Stack, test: Thin, k: int, energy: float) -> Pair:
    """By small products: float64 resolves the squares of all that float32 holds, and so do Gram matrices in it.

    QR decompositions are slower, and slower still where BLAS has threads of its own. What k columns hold of the stack
    is known after each iteration, and each after the first shrinks what is left to gain by (s_w / s_k)^4, of the
    singular values s of column k and of the first beyond the basis, so that most stacks need but one or two.
    """
    y, held = x @ test, 0.0
    for left in reversed(range(POWER_ITERATIONS + 1)):
        q = _spread(y, _gram(y))
        z = x.T @ q
        gram = _gram(z)
        squares = np.linalg.eigvalsh(gram)[::-1]
        before, held = held, float(squares[:k].sum())
        missed = energy - held
        gain = held - before
        steady = gain <= STEADY * missed or (before and gain * _shrinking(squares, k) <= FORESEEN * missed)
        if not left or (missed > RESOLVED * energy and steady):
            break
        y = x @ _spread(z, gram)
    squares, vectors = np.linalg.eigh(_gram(q))  # from nearly orthonormal to orthonormal
    kept = squares > LEAST
    turn = vectors * np.where(kept, 1 / np.sqrt(np.where(kept, squares, 1)), 0)
    squares, vectors = np.linalg.eigh(turn.T @ gram @ turn)
    values = np.sqrt(np.maximum(squares[::-1], 0))
    return (q.astype(np.float64) @ (turn @ vectors[:, ::-1])).astype(np.float32), values.astype(np.float32)


def _shrinking(squares: Float[np.ndarray, " w"], k: int) -> float:
    """At most so much of what an iteration gained is left to the next; 1 where the spectrum has no gap behind k.

    Column k + 1 stands for those beyond the basis, which are no longer than it. It is known from below alone, so it is
    taken for twice as long in squares.
    """
    if k >= len(squares) or not squares[k - 1] > 0:
        return 1.0
    return float(min(1.0, 2 * max(squares[k], 0) / squares[k - 1]) ** 2)


def _gram(y: Thin) -> Float[np.ndarray, "w w"]:
    wide = y.astype(np.float64, copy=False)
    return wide.T @ wide


def _spread(y: Thin, gram: Float[np.ndarray, "w w"]) -> Thin:
    """Columns of the same span, close to orthonormal: shifted Cholesky QR (Fukaya et al. 2020, algorithm 4.1)."""
    shift = SHIFT * np.trace(gram) if gram.any() else 1.0
    root = np.linalg.cholesky(gram + shift * np.eye(len(gram)))
    return (y.astype(np.float64) @ np.linalg.inv(root).T).astype(y.dtype)
