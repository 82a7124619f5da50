"""The spectrum of a stack of columns, by the path that its size asks for; the result is the same beyond rounding.

A stack of few columns or rows goes through the thin SVD. Of a large one, whose leading part is all that is kept, the
randomised path gives that part. The whole of a large one comes from its smaller Gram matrix in float64: squaring a
float32 stack's condition number there costs nothing that float32 could hold.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import numpy as np

from share_jax.annotations import Float
from share_jax.linalg import basis_products
from share_jax.linalg.randomized_svd import BLOCK, OVERSAMPLE, leading_bases, leading_eigenvectors
from share_jax.runtime.threads import parallel_map

DENSE_UP_TO = 128
"""Up to this many columns or rows one SVD costs no more than its detours."""

MOST_ROWS = 1024
"""Rows that count in the floor of the numerical rank. Rounding alone leaves singular values of a third of a machine
epsilon, relative to the largest, of 768 rows as of 128,256; the rest is room for merges after merges."""

Pair = tuple[Float[np.ndarray, "d m"], Float[np.ndarray, " m"]]
Parts = Sequence[Float[np.ndarray, "_ _"]]
"""The columns of one stack, in parts."""


class Spectrum(NamedTuple):
    """The left singular vectors of a stack, largest singular value first.

    Example:
        >>> (found,) = spectra([[np.diag([3.0, 4.0])]])
        >>> found.singular_values, found.energy, found.rank
        (array([4., 3.]), 25.0, 2)
    """

    basis: Float[np.ndarray, "d m"]
    singular_values: Float[np.ndarray, " m"]
    energy: float
    """The squared norm of the whole stack, in float64."""
    rank: int
    """Singular values above rounding."""


def spectra(
    stacks: Sequence[Parts], *, k: int | None = None, seed: int = 0, energies: Sequence[float] | None = None
) -> list[Spectrum]:
    """The spectra of stacks of any shapes: all of each, or the leading part where only `k` columns will be kept.

    Stacks are computed side by side on all processors; the result of each is the same to the bit as alone.

    Args:
        stacks: the parts of each. Zero columns are padding and count for nothing.
        k: columns that will be kept; all if None.
        seed: of the randomised path.
        energies: the stacks' squared norms, where they are known; the randomised path asks for them.

    Example:
        >>> left, right = np.diag([3.0, 0.0]), np.diag([4.0, 0.0])  # parts of one stack
        >>> (found,) = spectra([[left, right]])
        >>> found.singular_values, found.rank
        (array([5., 0.]), 1)
    """
    out: list[Spectrum | None] = [None] * len(stacks)
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, parts in enumerate(stacks):
        kind = parts[0].shape[0], sum(x.shape[1] for x in parts), np.result_type(*parts, np.float32)
        # stacks of one shape go through the randomised path together, a few at a time
        alike.setdefault(kind if few(k, min(kind[:2])) else ("whole", i), []).append(i)
    blocks = [some[start : start + BLOCK] for some in alike.values() for start in range(0, len(some), BLOCK)]

    def work(block: list[int]) -> list[Spectrum]:
        whole = [joined(stacks[i]) for i in block]
        if few(k, min(whole[0].shape)):
            sizes = [basis_products.energy(x) for x in whole] if energies is None else [energies[i] for i in block]
            pairs = leading_bases(whole, k=k, seed=seed, energies=sizes)
        else:
            # measured of the stack itself: a choice of k compares it with what is left of it, down to nothing
            sizes = [basis_products.energy(x) for x in whole]
            pairs = [svd_basis(x) if min(x.shape) <= DENSE_UP_TO else gram_basis(x) for x in whole]
        return [ranked(pair, size, min(x.shape)) for pair, size, x in zip(pairs, sizes, whole, strict=True)]

    for block, found in zip(blocks, parallel_map(work, blocks), strict=True):
        for i, spectrum in zip(block, found, strict=True):
            out[i] = spectrum
    return [spectrum for spectrum in out if spectrum is not None]


def spectrum_of_gram(matrix: Float[np.ndarray, "d d"], *, k: int | None = None, seed: int = 0) -> Spectrum:
    """The same of a stack X too wide to keep, from its Gram matrix X @ X.T in float64; float32 comes out.

    Args:
        matrix: X @ X.T, (d, d).
        k: columns that will be kept; all if None.
        seed: of the randomised path.

    Example:
        >>> stack = np.diag([3.0, 4.0])
        >>> spectrum_of_gram(stack @ stack.T).singular_values
        array([4., 3.], dtype=float32)
    """
    size = float(np.trace(matrix))
    if few(k, len(matrix)):
        basis, squares = leading_eigenvectors(matrix, k=k, seed=seed)
        values = np.sqrt(squares)
    else:
        basis, values = symmetric_basis(matrix)
    return ranked((basis.astype(np.float32), values.astype(np.float32)), size, len(matrix))


def few(k: int | None, of: int) -> TypeGuard[int]:
    """Whether k columns are so few of all that the randomised path pays."""
    return k is not None and of > DENSE_UP_TO and 3 * (k + OVERSAMPLE) <= of


def joined(parts: Parts) -> Float[np.ndarray, "d n"]:
    """One stack of its parts, in float64 if they are, else in float32: lower dtypes are upcast."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return whole if whole.dtype == np.float64 else whole.astype(np.float32, copy=False)


def svd_basis(stack: Float[np.ndarray, "d n"]) -> Pair:
    """Left singular vectors and singular values by the thin SVD, in the stack's own float32 or float64.

    The top k columns are the best k-dimensional subspace for the stack: the squared error of projecting on them
    is the sum of the discarded squared singular values (Eckart and Young 1936).
    """
    return np.linalg.svd(stack, full_matrices=False)[:2]


def symmetric_basis(matrix: Float[np.ndarray, "d d"]) -> Pair:
    """The same of a stack X from its X @ X.T, by the symmetric eigen-solver; singular values are square roots.

    Resolves singular values down to sqrt(d * machine epsilon) of the largest: pass float64 for a float32 claim.
    """
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, ::-1], np.sqrt(np.maximum(values[::-1], 0))


def gram_basis(stack: Float[np.ndarray, "d n"]) -> Pair:
    """As `svd_basis`, from the smaller Gram matrix in float64; a stack in float64 itself goes through the SVD.

    Columns of a wide stack are eigenvectors. Those of a tall one are images X v of eigenvectors v of X.T X, orthogonal
    to rounding only where the singular value is large: a QR decomposition makes up for that. In order of size, it takes
    from each column only what larger ones have, which is rounding.
    """
    if stack.dtype == np.float64:
        return svd_basis(stack)
    if len(stack) <= stack.shape[1]:
        basis, values = symmetric_basis(basis_products.gram(stack.T))
    else:
        right, values = symmetric_basis(basis_products.gram(stack))
        basis = orthonormal(stack.astype(np.float64) @ right)
    return basis.astype(stack.dtype), values.astype(stack.dtype)


def orthonormal(x: Float[np.ndarray, "d m"]) -> Float[np.ndarray, "d m"]:
    """Orthonormal columns by Householder QR, each with the sign of the column it comes from.

    Columns that depend on earlier ones come out as arbitrary unit vectors: drop them by rank before use.

    Example:
        >>> q = orthonormal(np.array([[3.0, 1.0], [4.0, 2.0], [0.0, 2.0]]))
        >>> q[:, 0].round(3), np.allclose(q.T @ q, np.eye(2))
        (array([0.6, 0.8, 0. ]), True)
    """
    q, r = np.linalg.qr(x)
    return q * np.where(np.diagonal(r) < 0, -1, 1).astype(q.dtype)


def numerical_rank(singular_values: Float[np.ndarray, " m"], *, rows: int) -> int:
    """Number of singular values above rounding, `min(rows, 1024)` times float32's machine epsilon times the largest.

    The width of a stack grows with its tasks, its rounding does not: the rows alone set the tolerance. It ends at 1024,
    so that a task of small updates is seen beside one of large updates in a layer of many rows, too.

    Args:
        singular_values: (m,).
        rows: of the stack, d.

    >>> numerical_rank(np.float32([3, 1, 1e-7]), rows=100), numerical_rank(np.zeros(2), rows=100)
    (2, 0)
    """
    floor = singular_values.max(initial=0.0) * (min(rows, MOST_ROWS) * np.finfo(np.float32).eps)
    return int(np.sum(singular_values > floor))


def ranked(pair: Pair, size: float, smaller: int) -> Spectrum:
    """What was found of a stack of that squared norm, whose smaller side is `smaller`, as a record."""
    basis, values = pair[0][:, :smaller], pair[1][:smaller]
    return Spectrum(basis, values, size, numerical_rank(values, rows=len(basis)))
