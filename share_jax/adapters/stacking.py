"""Targets of one shape, side by side: what lets one kernel do all their layers at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.annotations import Float, Int
from share_jax.errors import InputError, message
from share_jax.linalg.finite import all_finite
from share_jax.runtime.threads import parallel_map

LARGE = 2**22
"""Bytes of a group above which its targets are packed on all processors."""


class Packed(NamedTuple):
    """Factors of several tasks on the targets of one group; absent adapters and unused columns are zero.

    Of one target alone, all three are without the axis of layers.
    """

    a: Float[np.ndarray, "*layers tasks d_in p"]
    b: Float[np.ndarray, "*layers tasks d_out p"]
    ranks: Int[np.ndarray, "*layers tasks"]


def groups(shapes: Mapping[str, tuple[Any, ...]]) -> dict[tuple[Any, ...], list[str]]:
    """Targets by shape, in the order they come."""
    out: dict[tuple[Any, ...], list[str]] = {}
    for name, shape in shapes.items():
        out.setdefault(tuple(shape), []).append(name)
    return out


def shapes_of(adapters: Iterable[Adapter], known: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of every target that is known or that an adapter brings.

    Raises:
        InputError: two sources give one target different shapes: they belong to different base models.
    """
    shapes = dict(known)
    for adapter in adapters:
        for name, factors in adapter.items():
            expected = shapes.setdefault(name, factors.shape)
            if factors.shape != expected:
                fix = "adapters of one set must come from one base model"
                raise InputError(message(f"target {name}", got=factors.shape, expected=expected, fix=fix))
    return shapes


def pack(adapters: Sequence[Adapter], targets: Sequence[str], *, columns: int = 0) -> Packed:
    """The factors of `adapters` on `targets` (one shape) in float32, scale folded in half on either side.

    p is the largest rank that occurs, at least `columns`.

    Raises:
        InputError: an update is past what float32 holds.
    """
    present = [[adapter.get(name) for adapter in adapters] for name in targets]
    d_in, d_out = next(f.shape for row in present for f in row if f is not None)
    p = max(columns, *(f.rank for row in present for f in row if f is not None))
    count = len(adapters)
    ranks = np.array([[0 if f is None else f.rank for f in row] for row in present], np.int32)
    new = np.empty if np.all(ranks == p) else np.zeros
    # columns lie in one piece each, as in an adapter's file
    a = new((len(targets), count, p, d_in), np.float32).swapaxes(2, 3)
    b = new((len(targets), count, p, d_out), np.float32).swapaxes(2, 3)
    work = parallel_map if a.nbytes + b.nbytes > LARGE else _in_turn
    if not all(work(lambda i: _fill(a[i].mT, b[i].mT, present[i]), range(len(targets)))):
        i, j = np.argwhere(~(np.isfinite(a).all((2, 3)) & np.isfinite(b).all((2, 3))))[0]
        fix = "leave that adapter out or train it again"
        what = f"factors of target {targets[i]}, adapter {j + 1} of {len(adapters)}"
        raise InputError(message(what, got="a scale that takes them past float32", expected="finite numbers", fix=fix))
    return Packed(a, b, ranks)


def _in_turn(work: Callable[[int], bool], pieces: Iterable[int]) -> list[bool]:
    return [work(piece) for piece in pieces]


def _fill(
    a: Float[np.ndarray, "tasks p d_in"], b: Float[np.ndarray, "tasks p d_out"], row: Sequence[Factors | None]
) -> bool:
    """Writes one target's factors where they belong; what they leave is zero already. Whether all are finite."""
    scales = np.array([0.0 if f is None else f.scale for f in row])
    halves = np.abs(scales) ** 0.5
    if all(f is not None and f.rank == a.shape[1] for f in row):
        np.stack([np.asarray(f.lora_a).T for f in row if f is not None], out=a, casting="unsafe")
        np.stack([np.asarray(f.lora_b) for f in row if f is not None], out=b, casting="unsafe")
    else:
        for j, factors in enumerate(row):
            if factors is not None:
                a[j, : factors.rank] = np.asarray(factors.lora_a).T
                b[j, : factors.rank] = np.asarray(factors.lora_b)
    with np.errstate(over="ignore", invalid="ignore"):  # what is past float32 is refused by the caller
        for side, half in ((a, halves), (b, np.copysign(halves, scales))):
            np.multiply(side, half.astype(side.dtype)[:, None, None], out=side)
    return all_finite(a) and all_finite(b)
