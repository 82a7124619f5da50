"""Tasks in the coordinates of their bases, where they are as small as their coefficients."""

import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.subspace.state import ShareState, Subspace, factors_of


def coordinates_of(state: ShareState) -> list[Adapter]:
    """Adapters whose updates have the lengths and angles of the tasks' updates, one per task, in order.

    With basis = Q R and orthonormal Q, R @ coeff stands for basis @ coeff: Q changes no inner product. The flat
    geometry has no such coordinates: its tasks are reconstructed.
    """
    columns = {name: layer for name, layer in state.layers.items() if layer.geometry == "columns"}
    roots = {name: _roots(layer) for name, layer in columns.items()}
    out: list[Adapter] = []
    flat = ShareState(state.tasks, {name: x for name, x in state.layers.items() if name not in columns})
    for t, task in enumerate(state.tasks):
        own = {name: _factors(layer, *roots[name], t) for name, layer in columns.items() if layer.ranks[t]}
        out.append({**own, **factors_of(flat, task)})
    return out


def _roots(layer: Subspace) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(np.linalg.qr(basis, mode="r")) for basis in (layer.basis_a, layer.basis_b))
    return a, b


def _factors(layer: Subspace, root_a: np.ndarray, root_b: np.ndarray, task: int) -> Factors:
    rank = int(layer.ranks[task])
    a, b = root_a @ layer.coeff_a[task][:, :rank], root_b @ layer.coeff_b[task][:, :rank]
    return Factors(a, np.ascontiguousarray(b.T))
