"""New adapters that a set has learnt already."""

from collections.abc import Mapping

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.subspace import error_bounds
from share_jax.subspace.state import ShareState, factors_of

SAME_NORM = 1e-6
"""Relative; norms are kept in float64 of the adapters as they were given."""

MOST_LOST = 0.1
"""Of a task that has lost more than this share of its update, too little is left to tell a copy from another one."""


def copies(state: ShareState, adapters: Mapping[str, Adapter]) -> dict[str, tuple[str, dict[str, float]]]:
    """New tasks that equal a learnt one: {new: (old, distance of the old one's update by target)}.

    A set keeps no originals, so equality is judged by all that is left of them. Targets, ranks and the norm of the
    update on every target are the same. The reconstruction is no further away than the old task's proven error, nor
    than a tenth of its norm: of a task that has lost more, a copy comes in as a new one.
    The distance is measured, so what is claimed of the copy holds whether or not the two were equal.

    Args:
        state: the learnt tasks.
        adapters: new tasks by name.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> cola = {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}
        >>> state = initialize({"cola": cola})
        >>> task, distance = copies(state, {"again": cola})["again"]
        >>> task, distance["query"] < 1e-5
        ('cola', True)
    """
    out = {}
    for name, adapter in adapters.items():
        norms = error_bounds.update_norm(adapter)
        for task in _candidates(state, adapter, norms):
            distance = error_bounds.update_distance(adapter, factors_of(state, task))
            t = state.tasks.index(task)
            if all(distance[n] <= _allowed(state, n, t) for n in adapter):
                out[name] = (task, distance)
                break
    return out


def _allowed(state: ShareState, target: str, task: int) -> float:
    layer = state.layers[target]
    return float(min(layer.bound[task] * (1 + 1e-3) + 1e-6 * layer.norm[task], MOST_LOST * layer.norm[task]))


def _candidates(state: ShareState, adapter: Adapter, norms: Mapping[str, float]) -> list[str]:
    alike = np.ones(len(state.tasks), bool)
    for name, layer in state.layers.items():
        if name not in adapter:
            alike &= layer.ranks == 0
            continue
        rank = adapter[name].rank
        full = rank if layer.geometry == "flat" else min(rank, *layer.shape)
        alike &= layer.ranks == full
        alike &= np.abs(layer.norm - norms[name]) <= SAME_NORM * norms[name]
    if any(name not in state.layers for name in adapter):
        alike[:] = False
    return [task for task, same in zip(state.tasks, alike, strict=True) if same]
