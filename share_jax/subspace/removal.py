"""Taking a task out, and making the bases as small as what is left allows."""

from dataclasses import replace

import numpy as np

from share_jax.subspace.merging import remerge
from share_jax.subspace.projection import slots_of
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState


def remove(state: ShareState, task: str) -> ShareState:
    """Without one task. Bases stay, so no other task moves by a bit; a target that no task is left on goes.

    Args:
        state: the learnt tasks.
        task: the name of the one that goes.

    Raises:
        TaskError: there is no such task.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> names = ("cola", "rte")
        >>> adapters = {name: {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))} for name in names}
        >>> remove(initialize(adapters), "cola").tasks
        ('rte',)
    """
    t = state.index(task)
    layers = {}
    for name, layer in state.layers.items():
        kept = {field: np.delete(x, t, axis=0) for field, x in slots_of(layer)._asdict().items()}
        if np.any(kept["ranks"]):
            layers[name] = replace(layer, **kept)
    return ShareState(tuple(x for x in state.tasks if x != task), layers)


def recompress(
    state: ShareState, choice: Choice | None = None, *, limit: float | None = None, seed: int = 0
) -> ShareState:
    """Bases chosen anew for the tasks that are there: after a removal, or to a smaller k.

    The change of every task is measured and added to its bound, as in a merge of nothing. Bases may shrink.

    Args:
        state: the learnt tasks.
        choice: how k is chosen; an explained variance of 0.999 when None.
        limit: no task's proven error, relative over its whole adapter, may pass it.
        seed: for the randomised path of wide stacks.

    Raises:
        LimitError: `limit` (or the choice's `max_error`) is passed even with every direction kept.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> names = ("cola", "rte")
        >>> adapters = {name: {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))} for name in names}
        >>> left = remove(initialize(adapters), "cola")
        >>> left.layers["query"].num_basis, recompress(left).layers["query"].num_basis
        ((4, 4), (2, 2))
    """
    return remerge(state, choice or Choice(), limit=limit, seed=seed)
