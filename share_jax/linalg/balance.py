"""Balanced factors: the one pair of factors of an update that does not depend on how it was written (its gauge).

A basis of the columns of A and B depends on G where an update is (A G) (G^-1 B). Balanced factors do not: they are
U sqrt(S) and V sqrt(S), from the update's thin SVD U S V.T.
"""

from typing import NamedTuple

import numpy as np

from share_jax.annotations import Float
from share_jax.linalg import basis_products
from share_jax.runtime.threads import parallel_map

LEAST = 1e-13
"""Singular values of the core below this share of the largest are rounding: their columns are zero."""

INDEPENDENT = 1e-6
"""Distance of every unit column from those before it above which a Cholesky decomposition is as exact as any."""


class FactorGrams(NamedTuple):
    """Gram matrices of the input factors and squared lengths of the balanced columns, in float64."""

    gram_a: Float[np.ndarray, "layers tasks r r"]  # a.T a of what came in
    gram_b: Float[np.ndarray, "layers tasks r r"]
    squares: Float[np.ndarray, "layers tasks m"]  # of either balanced factor: the update's singular values

    @property
    def energy(self) -> Float[np.ndarray, "*layers tasks"]:
        """Squared norm of either balanced factor."""
        return self.squares.sum(axis=-1)


class Balanced(NamedTuple):
    """Balanced factors, and what was found out about those that came in."""

    a: Float[np.ndarray, "layers tasks d_in m"]
    b: Float[np.ndarray, "layers tasks d_out m"]
    known: FactorGrams


def balanced(a: Float[np.ndarray, "layers tasks d_in r"], b: Float[np.ndarray, "layers tasks d_out r"]) -> Balanced:
    """Balanced factors of `a @ b.T`: with its thin SVD U S V.T, (U sqrt(S), V sqrt(S)), largest column first.

    m = min(r, d_in, d_out). The (d_in, d_out) product is never formed. With R_a.T R_a = a.T a, R_b likewise, the core
    R_a @ R_b.T = P S Q.T has the product's singular values, and

        U sqrt(S) = a @ R_b.T @ Q / sqrt(S),    V sqrt(S) = b @ R_a.T @ P / sqrt(S),

    in float64 throughout. Any pair (a G, b G^-T) gives the same result, up to a common sign per column.

    Args:
        a: factors A of tasks on layers of one shape, (layers, tasks, d_in, r).
        b: factors B, (layers, tasks, d_out, r).

    >>> a, b = np.float32([[3], [0]]), np.float32([[0], [0], [12]])
    >>> found = balanced(a[None, None], b[None, None])
    >>> np.abs(found.a[0, 0]).T.tolist(), np.abs(found.b[0, 0]).T.tolist()
    ([[6.0, 0.0]], [[0.0, 0.0, 6.0]])
    """
    m = min(a.shape[-1], a.shape[-2], b.shape[-2])
    # a column lies in one piece
    out_a, out_b = (np.empty((*x.shape[:2], m, x.shape[2]), np.result_type(x, np.float32)).mT for x in (a, b))
    gram_a, gram_b = (np.empty((*x.shape[:2], x.shape[3], x.shape[3])) for x in (a, b))
    squares = np.empty((*a.shape[:2], m))

    def one(i: int) -> None:
        squares[i] = _balanced((a[i], b[i]), (out_a[i], out_b[i]), (gram_a[i], gram_b[i]))[:, :m]

    parallel_map(one, range(len(a)))
    return Balanced(out_a, out_b, FactorGrams(gram_a, gram_b, squares))


def singular_values(
    a: Float[np.ndarray, "tasks d_in r"], b: Float[np.ndarray, "tasks d_out r"]
) -> Float[np.ndarray, "tasks m"]:
    """Those of every `a @ b.T`, largest first, without the balanced factors; m = min(r, d_in, d_out).

    >>> singular_values(np.float32([[[3], [0]]]), np.float32([[[0], [12]]])).round(4).tolist()
    [[36.0]]
    """
    roots, sizes = zip(*(_scaled_root(x, basis_products.gram(x)) for x in (a, b)), strict=True)
    _, s, _ = _core(*roots)
    return (s * np.squeeze(sizes[0] * sizes[1], -1))[:, : min(a.shape[-1], a.shape[-2], b.shape[-2])]


def _balanced(
    pair: tuple[np.ndarray, np.ndarray], out: tuple[np.ndarray, np.ndarray], grams: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, "tasks q"]:
    """As `balanced`, of one layer, into `out` and `grams`; the singular values."""
    rows = [x.mT.astype(np.float64) for x in pair]  # a column lies in one piece
    for wide, gram in zip(rows, grams, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # float64 has no wider type for its squares
            np.matmul(wide, wide.mT, out=gram)
    roots, sizes = zip(*(_scaled_root(x, gram) for x, gram in zip(pair, grams, strict=True)), strict=True)
    u, s, vt = _core(*roots)
    shrink = np.where(s > 0, 1 / np.sqrt(np.where(s > 0, s, 1)), 0)[..., None]
    ratio = np.sqrt(sizes[1]) / np.sqrt(sizes[0])
    turns = vt @ roots[1] * shrink * ratio, u.mT @ roots[0] * shrink / ratio
    for into, wide, turn in zip(out, rows, turns, strict=True):
        into[...] = (turn[:, : into.shape[-1]] @ wide).mT
    return s * np.squeeze(sizes[0] * sizes[1], -1)


def _scaled_root(
    x: Float[np.ndarray, "tasks d r"], gram: Float[np.ndarray, "tasks r r"]
) -> tuple[Float[np.ndarray, "tasks q r"], Float[np.ndarray, "tasks 1 1"]]:
    """R / size and the size, with R.T R = x.T x = `gram`: with it taken out, tiny and huge updates lose nothing.

    q is r, or min(d, r) in float64.
    """
    root = np.asarray(np.linalg.qr(x, mode="r")) if x.dtype == np.float64 else _root(gram)
    size = np.max(np.abs(root), axis=(-2, -1), keepdims=True)
    size = np.where(size > 0, size, 1)
    return root / size, size


def _core(
    root_a: Float[np.ndarray, "tasks q_a r"], root_b: Float[np.ndarray, "tasks q_b r"]
) -> tuple[np.ndarray, Float[np.ndarray, "tasks q"], np.ndarray]:
    """The SVD of the core; singular values that are rounding are zero."""
    u, s, vt = np.linalg.svd(root_a @ root_b.mT, full_matrices=False)
    return u, np.where(s > LEAST * s[..., :1], s, 0), vt


def _root(gram: Float[np.ndarray, "tasks r r"]) -> Float[np.ndarray, "tasks r r"]:
    """R with R.T R = `gram`, in float64, which resolves the squares of what float32 holds.

    Columns are brought to one length first, so that the shortest is as exact as any.
    """
    length = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    unit = np.where(length > 0, length, 1)
    gram = gram / (unit[..., :, None] * unit[..., None, :])
    gram = gram + np.eye(gram.shape[-1]) * (length == 0)[..., None, :]  # columns of zeros, as for padding
    root = _cholesky(gram)
    if root is None:  # some task's; the others' roots do not depend on it
        root = np.stack([_eigen_root(x) if (one := _cholesky(x)) is None else one for x in gram])
    return root * length[..., None, :]


def _cholesky(gram: Float[np.ndarray, "*tasks r r"]) -> Float[np.ndarray, "*tasks r r"] | None:
    """As `_root`, of columns of length 1; None if some depend on others."""
    try:
        root = np.linalg.cholesky(gram).mT
    except np.linalg.LinAlgError:
        return None
    return root if np.min(np.diagonal(root, axis1=-2, axis2=-1), initial=1) > INDEPENDENT else None


def _eigen_root(gram: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
    values, vectors = np.linalg.eigh(gram)
    noise = 4 * np.finfo(np.float64).eps * values[-1]
    return np.sqrt(np.where(values > noise, values, 0))[:, None] * vectors.T
