"""The leading directions of a large stack, on the host: nothing is compiled."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from share_jax.linalg import products

OVERSAMPLE = 16
POWER_ITERATIONS = 4
TOGETHER = 6
"""Stacks that a thread takes at once: threads wait for each other at small calls, of which there are fewer then."""
SHIFT = 1e-13
"""Added to a Gram matrix's diagonal, relative to its trace: its root is where float32's rounding is."""
LEAST = 0.01
"""Squared length, after the shift, below which a column of a basis is rounding."""
STEADY, FORESEEN = 1e-4, 1e-6
"""Iterations end when one takes less than the first share off the energy that k columns miss, or the next is to take
less than the second."""
RESOLVED = {np.float32: 1e-6, np.float64: 1e-13}
"""Share of all energy above which what is missed can be told from rounding."""

Stack = Float[np.ndarray, "d n"]
Thin = Float[np.ndarray, "rows w"]
Thins = Float[np.ndarray, "L rows w"]
Pair = tuple[Float[np.ndarray, "d w"], Float[np.ndarray, " w"]]


def leading_bases(
    stacks: Sequence[Stack], *, k: int, seed: int = 0, energies: Sequence[float] | None = None
) -> list[Pair]:
    """The leading left singular vectors and singular values of stacks, by a few thin products where `k` is small.

    Range finder on a Gaussian test matrix with subspace iterations, then the SVD of the small projection (Halko,
    Martinsson and Tropp 2011, algorithms 4.4 and 5.1). It gives `OVERSAMPLE` columns more than are wanted, or as many
    as there are: drop those, they are the inaccurate ones. float64 stays float64, all else is taken in float32, where
    columns above the stack's rank are zero. Each stack's result is the same to the bit as alone.

    >>> stack = np.outer(np.arange(40.0), np.ones(50))
    >>> ((basis, values),) = leading_bases([stack], k=1)
    >>> bool(np.isclose(values[0], np.linalg.norm(stack)))
    True

    Args:
        stacks: of one shape and dtype.
        k: columns that are wanted.
        seed: of the test matrix.
        energies: the stacks' squared norms, where they are known.
    """
    if stacks[0].dtype == np.float64:
        return [_in_float64(x, k, seed) for x in stacks]
    known = [products.energy(x) for x in stacks] if energies is None else energies
    sizes = [energy**0.5 for energy in known]
    fits = [1e-15 < size < 1e15 or not size for size in sizes]
    narrow = [
        # or products would leave float32's range
        x.astype(np.float32, copy=False) if fit else (x.astype(np.float64) / size).astype(np.float32)
        for x, size, fit in zip(stacks, sizes, fits, strict=True)
    ]
    energy = np.array(
        [energy if fit else products.energy(x) for x, energy, fit in zip(narrow, known, fits, strict=True)]
    )
    basis, values = _in_float32(narrow, _test(narrow[0], k, seed, np.float32), k, energy)
    scaled = [v if fit else (v * size).astype(np.float32) for v, size, fit in zip(values, sizes, fits, strict=True)]
    return list(zip(basis, scaled, strict=True))


def leading_eigenvectors(gram: Float[np.ndarray, "d d"], *, k: int, seed: int = 0) -> Pair:
    """The same of a stack X from its X @ X.T in float64: eigenvectors, and eigenvalues, which are squares."""
    y, energy, held = gram @ _test(gram, k, seed, np.float64), np.trace(gram)[None], np.zeros(1)
    left = POWER_ITERATIONS
    while True:
        q = _qr(y)
        y = gram @ q
        values, turn = (x[..., ::-1] for x in np.linalg.eigh(q.T @ y))
        before, held = held, values[None, :k].sum(axis=1)
        if not left or not _goes_on(before, held, energy, values[None], k, RESOLVED[np.float64]).any():
            return q @ turn, np.maximum(values, 0)
        left -= 1


def _test(x: np.ndarray, k: int, seed: int, dtype: type[np.floating]) -> Thin:
    width = min(k + OVERSAMPLE, *x.shape)
    return _normal(seed, x.shape[1], width).astype(dtype, copy=False)


@functools.lru_cache(maxsize=4)
def _normal(seed: int, rows: int, width: int) -> Thin:
    """The layers of a model are of few shapes: what is drawn for one serves them all. Not to be written to."""
    return np.random.default_rng(seed).standard_normal((rows, width))


def _qr(y: Thin) -> Thin:
    return np.linalg.qr(y)[0]


def _in_float64(stack: Stack, k: int, seed: int) -> Pair:
    y = stack @ _test(stack, k, seed, np.float64)
    for _ in range(POWER_ITERATIONS):
        y = stack @ _qr(stack.T @ _qr(y))
    q = _qr(y)
    _, values, turn = np.linalg.svd(stack.T @ q, full_matrices=False)
    return q @ turn.T, values


def _in_float32(
    stacks: Sequence[Stack], test: Thin, k: int, energy: Float[np.ndarray, " L"]
) -> tuple[Float[np.ndarray, "L d w"], Float[np.ndarray, "L w"]]:
    """By small products: float64 resolves the squares of all that float32 holds, and so do Gram matrices in it.

    QR decompositions are slower, and slower still where BLAS has threads of its own. What k columns hold of a stack
    is known after each iteration, and each after the first shrinks what is left to gain by (s_w / s_k)^4, of the
    singular values s of column k and of the first beyond the basis, so that most stacks need but one or two.
    """
    count, width = len(stacks), test.shape[1]
    d, n = stacks[0].shape
    y, z = np.empty((count, d, width), np.float32), np.empty((count, n, width), np.float32)
    q, gram, held = np.empty_like(y), np.empty((count, width, width)), np.zeros(count)
    for i, x in enumerate(stacks):
        np.matmul(x, test, out=y[i])
    active = np.arange(count)
    for left in reversed(range(POWER_ITERATIONS + 1)):
        q[active] = _spread(y[active], products.gram(y[active]))
        for i in active.tolist():
            np.matmul(stacks[i].T, q[i], out=z[i])
        gram[active] = products.gram(z[active])
        squares = np.linalg.eigvalsh(gram[active])[:, ::-1]
        before, held[active] = held[active], squares[:, :k].sum(axis=1)
        active = active[_goes_on(before, held[active], energy[active], squares, k, RESOLVED[np.float32])]
        if not left or not active.size:
            break
        for i, thin in zip(active.tolist(), _spread(z[active], gram[active]), strict=True):
            np.matmul(stacks[i], thin, out=y[i])
    squares, vectors = np.linalg.eigh(products.gram(q))  # from nearly orthonormal to orthonormal
    kept = squares > LEAST
    turn = vectors * np.where(kept, 1 / np.sqrt(np.where(kept, squares, 1)), 0)[:, None, :]
    squares, vectors = np.linalg.eigh(turn.mT @ gram @ turn)
    values = np.sqrt(np.maximum(squares[:, ::-1], 0))
    return (q.astype(np.float64) @ (turn @ vectors[:, :, ::-1])).astype(np.float32), values.astype(np.float32)


def _goes_on(
    before: Float[np.ndarray, " L"],
    held: Float[np.ndarray, " L"],
    energy: Float[np.ndarray, " L"],
    squares: Float[np.ndarray, "L w"],
    k: int,
    resolved: float,
) -> Bool[np.ndarray, " L"]:
    """Whether another iteration is worth it, from what k columns held before the last one and hold after it.

    After the first one, before which they held nothing, it is.
    """
    gain, missed = held - before, energy - held
    foreseen = gain * _shrinking(squares, k) <= FORESEEN * missed
    return (before <= 0) | (missed <= resolved * energy) | ((gain > STEADY * missed) & ~foreseen)


def _shrinking(squares: Float[np.ndarray, "L w"], k: int) -> Float[np.ndarray, " L"]:
    """At most so much of what an iteration gained is left to the next; 1 where the spectrum has no gap behind k.

    Column k + 1 stands for those beyond the basis, which are no longer than it. It is known from below alone, so it is
    taken for twice as long in squares.
    """
    if k >= squares.shape[1]:
        return np.ones(len(squares))
    last = np.maximum(squares[:, k - 1], 0)
    return np.minimum(1.0, 2 * np.maximum(squares[:, k], 0) / np.where(last > 0, last, 1) + (last <= 0)) ** 2


def _spread(y: Thins, gram: Float[np.ndarray, "L w w"]) -> Thins:
    """Columns of the same span, close to orthonormal: shifted Cholesky QR (Fukaya et al. 2020, algorithm 4.1)."""
    trace = np.trace(gram, axis1=1, axis2=2)
    shift = np.where(trace > 0, SHIFT * trace, 1.0)[:, None, None] * np.eye(gram.shape[-1])
    return (y.astype(np.float64) @ np.linalg.inv(np.linalg.cholesky(gram + shift)).mT).astype(y.dtype)
