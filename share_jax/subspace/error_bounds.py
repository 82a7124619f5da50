"""What an update has lost, measured in float64 without forming a (d_in, d_out) product, and what is proven of it.

With dA = A - A' and dB = B - B', both (d, p), and the update A @ B.T,

    A B.T - A' B'.T = dA B.T + A' dB.T
    |.|_F^2 = <dA.T dA, B.T B> + 2 <dA.T A', B.T dB> + <A'.T A', dB.T dB>,

three sums over (p, p) Gram matrices whose terms are as small as the result, so that nothing cancels. Its norm is at
most |dA|_F |B|_2 + |A'|_2 |dB|_F (the product bound). By the triangle inequality the error of a task since it was
learnt is at most its error when learnt plus the change in every merge since (the chain bound): the record's `bound`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.annotations import Float

ROUNDING = 4e-7
"""Margin of a measured error, relative to |A|_F |B|_F: differences of squares in float64 resolve 3e-8 of it, and each
rounding to float32 is off by up to 6e-8: of a scale, of a factor's product with it, of a factor that is read out."""

A = Float[np.ndarray, "*batch d_in p"]
B = Float[np.ndarray, "*batch d_out p"]
OtherA = Float[np.ndarray, "*batch d_in q"]
OtherB = Float[np.ndarray, "*batch d_out q"]


def _inner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.sum(x * y, axis=(-2, -1)))


def squared_norm(a: A, b: B) -> Float[np.ndarray, "*batch"]:
    """`|a @ b.T|_F^2 = <a.T a, b.T b>`, in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray(np.maximum(_inner(a.mT @ a, b.mT @ b), 0))


def inner_product(a: A, b: B, c: OtherA, d: OtherB) -> Float[np.ndarray, "*batch"]:
    """`<a @ b.T, c @ d.T>_F = <a.T c, b.T d>`, in float64."""
    a, b, c, d = (np.asarray(x, np.float64) for x in (a, b, c, d))
    return _inner(a.mT @ c, b.mT @ d)


def squared_change(a: A, b: B, a_new: A, b_new: B) -> Float[np.ndarray, "*batch"]:
    """`|a @ b.T - a_new @ b_new.T|_F^2` for factors in one gauge, column by column comparable; in float64."""
    a, b, a_new, b_new = (np.asarray(x, np.float64) for x in (a, b, a_new, b_new))
    da, db = a - a_new, b - b_new
    return from_grams(
        dada=da.mT @ da, bb=b.mT @ b, daa=da.mT @ a_new, bdb=b.mT @ db, aa=a_new.mT @ a_new, dbdb=db.mT @ db
    )


def from_grams(
    *, dada: np.ndarray, bb: np.ndarray, daa: np.ndarray, bdb: np.ndarray, aa: np.ndarray, dbdb: np.ndarray
) -> np.ndarray:
    """The formula at the top, from its six Gram matrices."""
    return np.asarray(np.maximum(_inner(dada, bb) + 2 * _inner(daa, bdb) + _inner(aa, dbdb), 0))


def squared_distance(
    a: A, b: B, c: OtherA, d: OtherB, size: Float[np.ndarray, "*batch"] | None = None
) -> Float[np.ndarray, "*batch"]:
    """`|a @ b.T - c @ d.T|_F^2` in any gauges and ranks, in float64.

    A difference of squares: it resolves a relative distance of about 3e-8 |a|_F |b|_F. `size` is `squared_norm(a, b)`
    where that is known.
    """
    size = squared_norm(a, b) if size is None else size
    return np.asarray(np.maximum(size - 2 * inner_product(a, b, c, d) + squared_norm(c, d), 0))


class Grams(NamedTuple):
    """Of one side's factors x, (d, p), and of others y, (d, q), which stand for them."""

    xx: Float[np.ndarray, "*batch p p"]
    xy: Float[np.ndarray, "*batch p q"]
    yy: Float[np.ndarray, "*batch q q"]


def distance_from_grams(a: Grams, b: Grams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`squared_norm`, `squared_distance` and `rounding` of both sides' factors, from what is known of them."""
    size = np.maximum(_inner(a.xx, b.xx), 0)
    squared = np.maximum(size - 2 * _inner(a.xy, b.xy) + _inner(a.yy, b.yy), 0)
    energies = [np.trace(x.xx, axis1=-2, axis2=-1) for x in (a, b)]
    return size, squared, ROUNDING * np.sqrt(energies[0] * energies[1])


def rounding(a: A, b: B) -> Float[np.ndarray, "*batch"]:
    """The margin that a measured error of `a @ b.T` is given before it counts as proven."""
    lengths = [np.sqrt(np.sum(np.asarray(x, np.float64) ** 2, axis=(-2, -1))) for x in (a, b)]
    return np.asarray(ROUNDING * lengths[0] * lengths[1])


def _sides(factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(factors.lora_a, np.float64) * factors.scale, np.asarray(factors.lora_b, np.float64).T


def update_norm(adapter: Adapter) -> dict[str, float]:
    """Frobenius norm of every target's update."""
    return {name: float(np.sqrt(squared_norm(*_sides(f)))) for name, f in adapter.items()}


def update_distance(x: Adapter, y: Adapter) -> dict[str, float]:
    """Frobenius norm of the difference of every target's update; a target that one lacks is zero there.

    Two QR decompositions put both updates into one small core, so that nothing cancels: accurate to float64 rounding.
    """
    out = {}
    for name in dict.fromkeys([*x, *y]):
        parts = [_sides(adapter[name]) for adapter in (x, y) if name in adapter]
        if len(parts) == 1:
            out[name] = float(np.sqrt(squared_norm(*parts[0])))
            continue
        (a, b), (c, d) = parts
        left = np.linalg.qr(np.concatenate([a, -c], axis=1))[1]
        right = np.linalg.qr(np.concatenate([b, d], axis=1))[1]
        out[name] = float(np.linalg.norm(left @ right.T))
    return out


def total(norms: Mapping[str, float]) -> float:
    """`sqrt(sum_l x_l^2)` over the targets."""
    return float(np.sqrt(sum(x * x for x in norms.values())))


def relative_distance(x: Adapter, y: Adapter) -> float:
    """Distance of two adapters over all targets, relative to `x`; 0 if both are zero.

    Args:
        x: the adapter that is compared with.
        y: another of the same base model.

    Example:
        >>> one = {"query": Factors(np.ones((4, 1)), np.ones((1, 3)))}
        >>> other = {"query": Factors(np.ones((4, 1)), np.ones((1, 3)), scale=0.75)}
        >>> round(relative_distance(one, other), 6)
        0.25
    """
    return _relative(total(update_distance(x, y)), x)


def relative_change(x: Adapter, y: Adapter) -> float:
    """`relative_distance` of an adapter to what rounding has made of its factors: where nothing cancels, without QR.

    Args:
        x: the adapter that is compared with.
        y: the same targets. Factors of the same shapes are in the same gauge.

    Example:
        >>> one = {"query": Factors(np.ones((4, 1)), np.ones((1, 3)))}
        >>> rounded = {"query": Factors(np.ones((4, 1)), np.full((1, 3), 1.001))}
        >>> round(relative_change(one, rounded), 6)
        0.001
    """

    def change(name: str) -> float:
        if x[name].rank == y[name].rank:
            return float(np.sqrt(squared_change(*_sides(x[name]), *_sides(y[name]))))
        return update_distance({name: x[name]}, {name: y[name]})[name]

    return _relative(total({name: change(name) for name in x}), x)


def _relative(distance: float, x: Adapter) -> float:
    size = total(update_norm(x))
    return distance / size if size > 0 else (0.0 if distance == 0 else float("inf"))
