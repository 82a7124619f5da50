"""The leading directions of a large stack, on the host: nothing is compiled.

Range finder on a Gaussian test matrix with subspace iterations, then the SVD of the small projection (Halko, Martinsson
and Tropp 2011, algorithms 4.4 and 5.1).

When iterations end: each takes the basis closer to the leading left singular vectors, so that its first k columns
capture more of the stack's energy. What they do not capture is the residual. With s_k the singular value of column k
and s_w the first beyond the basis, an iteration gains at most (s_w / s_k)^4 of what the one before gained. So we stop
when the last gain is below `MIN_GAIN` of the residual, or the expected next one below `MIN_EXPECTED_GAIN` of it.
Most stacks need one or two iterations.
"""

import functools
from collections.abc import Sequence

import numpy as np

from share_jax.annotations import Bool, Float
from share_jax.linalg import basis_products

OVERSAMPLE = 16
POWER_ITERATIONS = 4
BLOCK = 6
"""Stacks that a thread takes at once: threads wait for each other at small calls, of which there are fewer then."""
SHIFT = 1e-13
"""Added to a Gram matrix's diagonal, relative to its trace: its root is where float32's rounding is."""
MIN_SQUARED_LENGTH = 0.01
"""A direction of energy e has squared length e / (e + shift) after `_cholesky_qr`. Below this it is rounding."""
MIN_GAIN, MIN_EXPECTED_GAIN = 1e-4, 1e-6
"""Shares of the residual: of the energy that k columns do not capture."""
RESOLVED = {np.float32: 1e-6, np.float64: 1e-13}
"""Share of all energy above which the residual, a difference, can be told from rounding."""

Stack = Float[np.ndarray, "d n"]
Thin = Float[np.ndarray, "rows w"]
Thins = Float[np.ndarray, "L rows w"]
Grams = Float[np.ndarray, "L w w"]
Pair = tuple[Float[np.ndarray, "d w"], Float[np.ndarray, " w"]]


def leading_bases(
    stacks: Sequence[Stack], *, k: int, seed: int = 0, energies: Sequence[float] | None = None
) -> list[Pair]:
    """The leading left singular vectors and singular values of stacks, by a few thin products where `k` is small.

    It gives `OVERSAMPLE` columns more than are wanted, or as many as there are: drop those, they are the inaccurate
    ones. float64 stays float64, all else is taken in float32, where columns above the stack's rank are zero. Each
    stack's result is the same to the bit as alone.

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
    known = [basis_products.energy(x) for x in stacks] if energies is None else energies
    rescaled = [_rescaled(x, energy) for x, energy in zip(stacks, known, strict=True)]
    narrow, energy, scales = zip(*rescaled, strict=True)
    q, grams = _subspace_iteration(narrow, _test_matrix(narrow[0], k, seed, np.float32), k, np.array(energy))
    return [
        (basis, (values * scale).astype(np.float32))
        for basis, values, scale in zip(*_ritz_pairs(q, grams), scales, strict=True)
    ]


def leading_eigenvectors(gram: Float[np.ndarray, "d d"], *, k: int, seed: int = 0) -> Pair:
    """The same of a stack X from its X @ X.T in float64: eigenvectors, and eigenvalues, which are squares."""
    y, energy, captured = gram @ _test_matrix(gram, k, seed, np.float64), np.trace(gram)[None], np.zeros(1)
    left = POWER_ITERATIONS
    while True:
        q = _qr(y)
        y = gram @ q
        squares, rotation = (x[..., ::-1] for x in np.linalg.eigh(q.T @ y))
        previous, captured = captured, squares[None, :k].sum(axis=1)
        if not left or not _needs_iteration(previous, captured, energy, squares[None], k, RESOLVED[np.float64]).any():
            return q @ rotation, np.maximum(squares, 0)
        left -= 1


def _test_matrix(x: np.ndarray, k: int, seed: int, dtype: type[np.floating]) -> Thin:
    width = min(k + OVERSAMPLE, *x.shape)
    return _normal(seed, x.shape[1], width).astype(dtype, copy=False)


@functools.lru_cache(maxsize=4)
def _normal(seed: int, rows: int, width: int) -> Thin:
    """The layers of a model are of few shapes: what is drawn for one serves them all. Not to be written to."""
    return np.random.default_rng(seed).standard_normal((rows, width))


def _qr(y: Thin) -> Thin:
    return np.linalg.qr(y)[0]


def _in_float64(stack: Stack, k: int, seed: int) -> Pair:
    """By QR decompositions: the squares in a Gram matrix would lose half of the digits."""
    y = stack @ _test_matrix(stack, k, seed, np.float64)
    for _ in range(POWER_ITERATIONS):
        y = stack @ _qr(stack.T @ _qr(y))
    q = _qr(y)
    _, values, rotation = np.linalg.svd(stack.T @ q, full_matrices=False)
    return q @ rotation.T, values


def _rescaled(stack: Stack, energy: float) -> tuple[Stack, float, float]:
    """The stack in float32, its energy, and the factor that was taken out to keep products in float32's range."""
    size = energy**0.5
    if 1e-15 < size < 1e15 or not size:
        return stack.astype(np.float32, copy=False), energy, 1.0
    scaled = (stack.astype(np.float64) / size).astype(np.float32)
    return scaled, basis_products.energy(scaled), size


def _subspace_iteration(
    stacks: Sequence[Stack], test: Thin, k: int, energy: Float[np.ndarray, " L"]
) -> tuple[Float[np.ndarray, "L d w"], Grams]:
    """Of every stack X a nearly orthonormal q that spans its leading directions, and the Gram matrix of X.T @ q.

    All by small products: float64 resolves the squares of all that float32 holds, and so do Gram matrices in it. QR
    decompositions are slower, and slower still where BLAS has threads of its own. A stack that is done is left alone.
    """
    count, width = len(stacks), test.shape[1]
    d, n = stacks[0].shape
    y, z = np.empty((count, d, width), np.float32), np.empty((count, n, width), np.float32)
    q, grams, captured = np.empty_like(y), np.empty((count, width, width)), np.zeros(count)
    for i, x in enumerate(stacks):
        np.matmul(x, test, out=y[i])
    active = np.arange(count)
    for left in reversed(range(POWER_ITERATIONS + 1)):
        q[active] = _cholesky_qr(y[active], basis_products.gram(y[active]))
        for i in active.tolist():
            np.matmul(stacks[i].T, q[i], out=z[i])
        grams[active] = basis_products.gram(z[active])
        squares = np.linalg.eigvalsh(grams[active])[:, ::-1]  # of the singular values so far, largest first
        previous, captured[active] = captured[active], squares[:, :k].sum(axis=1)
        more = _needs_iteration(previous, captured[active], energy[active], squares, k, RESOLVED[np.float32])
        active = active[more]
        if not left or not active.size:
            break
        for i, right in zip(active.tolist(), _cholesky_qr(z[active], grams[active]), strict=True):
            np.matmul(stacks[i], right, out=y[i])
    return q, grams


def _needs_iteration(
    previous: Float[np.ndarray, " L"],
    captured: Float[np.ndarray, " L"],
    energy: Float[np.ndarray, " L"],
    squares: Float[np.ndarray, "L w"],
    k: int,
    resolved: float,
) -> Bool[np.ndarray, " L"]:
    """Whether another iteration pays; after the first one always, and where the residual is rounding.

    Args:
        previous: energy that k columns captured before the last iteration; 0 before the first.
        captured: what they capture now.
        energy: of the whole stacks.
        squares: of the singular values so far.
        k: columns that are wanted.
        resolved: share of the energy that is rounding.
    """
    gain, residual = captured - previous, energy - captured
    expected = gain * _contraction(squares, k)
    pays = (gain > MIN_GAIN * residual) & (expected > MIN_EXPECTED_GAIN * residual)
    return (previous <= 0) | (residual <= resolved * energy) | pays


def _contraction(squares: Float[np.ndarray, "L w"], k: int) -> Float[np.ndarray, " L"]:
    """At most this share of an iteration's gain is left to the next, (s_w / s_k)^4; 1 where there is no gap behind k.

    s_w is not known. Column k + 1 stands for it, which is no smaller. Its estimate is a lower bound, so its square is
    taken twice.
    """
    if k >= squares.shape[1]:
        return np.ones(len(squares))
    last, behind = np.maximum(squares[:, k - 1], 0), np.maximum(squares[:, k], 0)
    return np.where(last > 0, np.minimum(1.0, 2 * behind / np.where(last > 0, last, 1)), 1.0) ** 2


def _ritz_pairs(q: Thins, grams: Grams) -> tuple[Float[np.ndarray, "L d w"], Float[np.ndarray, "L w"]]:
    """The stacks' singular vectors within the span of q, and their singular values (Rayleigh-Ritz).

    q is orthonormal up to rounding, or has short columns where the stack's rank is lower. Its Gram matrix, V diag(e)
    V.T, says how to make it orthonormal: q @ t with t = V / sqrt(e), zero where e is a rounding's. A stack's Gram
    matrix in that basis is t.T @ gram @ t; its eigenvectors are the leading directions, its eigenvalues their squares.
    """
    lengths, vectors = np.linalg.eigh(basis_products.gram(q))
    real = lengths > MIN_SQUARED_LENGTH
    t = vectors * np.where(real, 1 / np.sqrt(np.where(real, lengths, 1)), 0)[:, None, :]
    squares, rotation = np.linalg.eigh(t.mT @ grams @ t)
    values = np.sqrt(np.maximum(squares[:, ::-1], 0))
    return (q.astype(np.float64) @ (t @ rotation[:, :, ::-1])).astype(np.float32), values.astype(np.float32)


def _cholesky_qr(y: Thins, gram: Grams) -> Thins:
    """Columns of the same span, close to orthonormal: shifted Cholesky QR (Fukaya et al. 2020, algorithm 4.1)."""
    trace = np.trace(gram, axis1=1, axis2=2)
    shift = np.where(trace > 0, SHIFT * trace, 1.0)[:, None, None] * np.eye(gram.shape[-1])
    return (y.astype(np.float64) @ np.linalg.inv(np.linalg.cholesky(gram + shift)).mT).astype(y.dtype)
