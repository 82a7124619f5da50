"""Coefficients in the gauge that takes the fewest bytes, used for int8.

A task's update is `coeff_a @ coeff_b.T` between the two bases, so (coeff_a G, coeff_b G^-T) is the same update for
any invertible (r, r) matrix G. With G the inverse of r chosen rows of `coeff_a`, those rows become the identity and
need not be stored, nor do the scales of its columns: r^2 numbers fewer per task. The rows are chosen so that no other
entry is above 1 (a submatrix of locally largest volume: Goreinov, Tyrtyshnikov and Zamarashkin 1997), which keeps
rounding small.
"""

from dataclasses import replace

import numpy as np

from share_jax.linalg.balance import balanced
from share_jax.subspace.quantize import encode, to_rounded_basis
from share_jax.subspace.state import ShareState, Subspace

_SWAPS = 200


def pivoted_state(state: ShareState) -> ShareState:
    """The same updates with r rows of every `coeff_a` the identity, where that is possible (columns geometry)."""
    return replace(state, layers={name: pivoted_layer(layer) for name, layer in state.layers.items()})


def balanced_state(state: ShareState) -> ShareState:
    """The same updates in balanced coefficients, the gauge in which merging weighs the two sides alike."""
    layers = {}
    for name, layer in state.layers.items():
        if layer.geometry != "columns" or not all(layer.num_basis):  # without columns all updates are zero
            layers[name] = layer
            continue
        coeff_a, coeff_b = layer.coeff_a.copy(), layer.coeff_b.copy()
        for rank in np.unique(layer.ranks[layer.ranks > 0]):
            tasks = np.flatnonzero(layer.ranks == rank)
            found = balanced(*(side[None, tasks, :, :rank].astype(np.float64) for side in (coeff_a, coeff_b)))
            for side, own in ((coeff_a, found.a), (coeff_b, found.b)):
                side[tasks, :, :rank] = 0
                side[tasks, :, : own.shape[-1]] = own[0]
        layers[name] = replace(layer, coeff_a=coeff_a, coeff_b=coeff_b)
    return replace(state, layers=layers)


def pivoted_layer(layer: Subspace, to_rounded: np.ndarray | None = None) -> Subspace:
    """As `pivoted_state`, of one target.

    Args:
        layer: the target.
        to_rounded: the map from coefficients on `basis_a` to those on its rounding, where it is known.
    """
    if layer.geometry != "columns" or not layer.basis_a.shape[1]:
        return layer
    coeff_a, coeff_b = layer.coeff_a.copy(), layer.coeff_b.copy()
    if to_rounded is None:  # what is stored are coefficients on the rounded basis
        to_rounded = to_rounded_basis(layer.basis_a, encode(layer.basis_a, "int8"))
    for rank in np.unique(layer.ranks[layer.ranks > 0]):
        if rank >= coeff_a.shape[1]:
            continue
        tasks = np.flatnonzero(layer.ranks == rank)
        a, b = to_rounded @ coeff_a[tasks, :, :rank], coeff_b[tasks, :, :rank].astype(np.float64)
        rows, good = largest_rows(a)
        tasks, a, b, rows = tasks[good], a[good], b[good], rows[good]
        each = np.arange(len(tasks))[:, None]
        core = a[each, rows]
        a = np.clip(np.swapaxes(np.linalg.solve(np.swapaxes(core, 1, 2), np.swapaxes(a, 1, 2)), 1, 2), -1, 1)
        a[each, rows] = np.eye(rank)
        coeff_a[tasks, :, :rank] = np.linalg.solve(to_rounded, a)
        coeff_b[tasks, :, :rank] = b @ np.swapaxes(core, 1, 2)
    return replace(layer, coeff_a=coeff_a, coeff_b=coeff_b)


def largest_rows(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((T, r) rows of each (k, r) matrix with which no entry of `a @ inv(a[rows])` is above 1, (T,) whether found)."""
    count, _, rank = a.shape
    each = np.arange(count)
    rest, rows = a.copy(), np.zeros((count, rank), int)
    good = np.ones(count, bool)
    size = np.sqrt(np.einsum("tkr,tkr->t", a, a))
    for j in range(rank):  # start: the row farthest from the span of those before
        lengths = np.linalg.norm(rest, axis=2)
        rows[:, j] = lengths.argmax(1)
        length = lengths[each, rows[:, j]]
        good &= length > 1e-5 * size
        unit = rest[each, rows[:, j]] / np.where(length > 0, length, 1)[:, None]
        rest -= (rest @ unit[:, :, None]) * unit[:, None, :]
    left = good.copy()
    for _ in range(_SWAPS):
        if not left.any():
            break
        t = np.flatnonzero(left)
        core = a[t[:, None], rows[t]]
        x = np.abs(np.swapaxes(np.linalg.solve(np.swapaxes(core, 1, 2), np.swapaxes(a[t], 1, 2)), 1, 2))
        at = x.reshape(len(t), -1).argmax(1)
        above = x.reshape(len(t), -1)[np.arange(len(t)), at] > 1 + 1e-6
        rows[t[above], at[above] % rank] = at[above] // rank
        left[t[~above]] = False
    return rows, good & ~left


def identity_rows(values: np.ndarray, scales: np.ndarray) -> np.ndarray | None:
    """The r rows of an int8 (k, r) matrix that are the identity, if its scales say so too; else None."""
    rank = values.shape[1]
    if rank >= values.shape[0] or (np.abs(scales / UNIT_SCALE - 1) > 1e-5).any():
        return None
    hits = (values[:, None, :] == 127 * np.eye(rank, dtype=np.int16)[None]).all(2)
    return hits.argmax(0) if hits.any(0).all() else None


UNIT_SCALE = np.float32(1) / np.float32(127)
"""The scale of a column whose largest entry is 1."""
