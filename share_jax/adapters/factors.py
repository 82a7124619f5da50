"""LoRA factors of one task, and the balanced form that makes bases independent of their gauge."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from share_jax.adapters.stacking import groups, pack
from share_jax.errors import InputError, message
from share_jax.linalg.finite import all_finite
from share_jax.runtime.threads import each


@dataclass(frozen=True)
class Factors:
    """One LoRA pair of one target: the update is `scale * lora_a @ lora_b`. Any float dtype; upcast when used.

    Raises:
        InputError: the two factors do not multiply, are not float matrices, or hold a NaN or an infinity.
    """

    lora_a: np.ndarray | Any  # (d_in, r), checked below
    lora_b: np.ndarray | Any  # (r, d_out)
    scale: float | int = 1.0

    def __post_init__(self) -> None:
        """Checks shapes and values, once, at the door."""
        a, b = np.shape(self.lora_a), np.shape(self.lora_b)
        if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
            got, fix = (
                f"shapes {a} and {b}",
                "pass lora_a (d_in, r) and lora_b (r, d_out); PEFT stores both transposed",
            )
            raise InputError(message("factors", got=got, expected="factors that multiply", fix=fix))
        for name in ("lora_a", "lora_b", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) if name == "scale" else all_finite(np.asarray(value))):
                fix = "train that adapter again or leave it out"
                raise InputError(message(name, got="a NaN or an infinity", expected="finite numbers", fix=fix))

    @property
    def rank(self) -> int:
        """Columns of `lora_a`."""
        return self.lora_a.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_in, d_out) of the update."""
        return self.lora_a.shape[0], self.lora_b.shape[1]


Adapter = Mapping[str, Factors]
"""One task's adapter: target name -> factors. Targets and ranks may differ between tasks and between targets."""


def nbytes(adapter: Adapter) -> int:
    """Of all its factors."""
    return sum(factors.lora_a.nbytes + factors.lora_b.nbytes for factors in adapter.values())


def lora_scale(alpha: float | int, rank: int, *, use_rslora: bool = False) -> float:
    """`alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA (Kalajdzievski 2023, equation 5).

    Raises:
        InputError: the rank is below 1.

    >>> lora_scale(8, 4), lora_scale(8, 4, use_rslora=True)
    (2.0, 4.0)
    """
    if rank < 1:
        raise InputError(message("rank", got=rank, expected="a whole number of at least 1", fix="pass rank=4"))
    return alpha / (rank**0.5 if use_rslora else rank)


class FactorGrams(NamedTuple):
    """What balancing found out about factors, in float64."""

    gram_a: Float[np.ndarray, "layers tasks r r"]  # a.T a of what came in
    gram_b: Float[np.ndarray, "layers tasks r r"]
    energy: Float[np.ndarray, "layers tasks"]  # squared norm of either balanced factor: the sum of singular values


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
    """
    m = min(a.shape[-1], a.shape[-2], b.shape[-2])
    # a column lies in one piece
    out_a, out_b = (np.empty((*x.shape[:2], m, x.shape[2]), np.result_type(x, np.float32)).mT for x in (a, b))
    gram_a, gram_b = (np.empty((*x.shape[:2], x.shape[3], x.shape[3])) for x in (a, b))
    energy = np.empty(a.shape[:2])

    def one(i: int) -> None:
        energy[i] = _balanced((a[i], b[i]), (out_a[i], out_b[i]), (gram_a[i], gram_b[i]))

    each(one, range(len(a)))
    return Balanced(out_a, out_b, FactorGrams(gram_a, gram_b, energy))


LEAST = 1e-13
"""Singular values of the core below this share of the largest are rounding: their columns are zero."""

INDEPENDENT = 1e-6
"""Distance of every unit column from those before it above which a Cholesky decomposition is as exact as any."""


def _balanced(
    pair: tuple[np.ndarray, np.ndarray], out: tuple[np.ndarray, np.ndarray], grams: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, " tasks"]:
    """As `balanced`, of one layer, into `out` and `grams`; the energies."""
    rows = [x.mT.astype(np.float64) for x in pair]  # a column lies in one piece
    roots, sizes = [], []
    for x, wide, gram in zip(pair, rows, grams, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # float64 has no wider type for its squares
            np.matmul(wide, wide.mT, out=gram)
        root = np.asarray(np.linalg.qr(x, mode="r")) if x.dtype == np.float64 else _root(gram)
        size = np.max(np.abs(root), axis=(-2, -1), keepdims=True)
        sizes.append(np.where(size > 0, size, 1))  # taken out, so that tiny and huge updates lose nothing
        roots.append(root / sizes[-1])
    u, s, vt = np.linalg.svd(roots[0] @ roots[1].mT, full_matrices=False)
    kept = s > LEAST * s[..., :1]
    shrink = np.where(kept, 1 / np.sqrt(np.where(kept, s, 1)), 0)[..., None]
    ratio = np.sqrt(sizes[1]) / np.sqrt(sizes[0])
    turns = vt @ roots[1] * shrink * ratio, u.mT @ roots[0] * shrink / ratio
    for into, wide, turn in zip(out, rows, turns, strict=True):
        into[...] = (turn[:, : into.shape[-1]] @ wide).mT
    return np.where(kept, s, 0).sum(axis=-1) * np.squeeze(sizes[0] * sizes[1], (-2, -1))


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


def balance(adapter: Adapter, *, rank: int | None = None) -> dict[str, Factors]:
    """The same updates in balanced factors, scale 1: `lora_a = U sqrt(S)`, `lora_b = sqrt(S) V.T`.

    `rank` keeps only that many columns, the best approximation of that rank (Eckart and Young 1936).

    Raises:
        InputError: `rank` is below 1.
    """
    if rank is not None and rank < 1:
        raise InputError(message("rank", got=rank, expected="at least 1, or None for no cut", fix="pass rank=8"))
    out: dict[str, Factors] = {}
    for targets in groups({name: f.shape for name, f in adapter.items()}).values():
        packed = pack([adapter], targets)
        a, b = (x[:, 0] for x in balanced(packed.a, packed.b)[:2])
        for i, name in enumerate(targets):
            keep = min(adapter[name].rank, *adapter[name].shape, rank or adapter[name].rank)
            out[name] = Factors(a[i, :, :keep], b[i, :, :keep].T)
    return {name: out[name] for name in adapter}
