"""Taking a task out, and making the bases as small as what is left allows."""

from dataclasses import replace

import numpy as np

from share_jax.subspace.merging import remerge
from share_jax.subspace.projection import slots_of
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState


def remove(state: ShareState, task: str) -> ShareState:
    """Without one task. Bases stay, so no other task moves by a bit; a target that no task is left on goes.

    Raises:
        TaskError: there is no such task.
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

    Raises:
        LimitError: `limit` (or the choice's `max_error`) is passed even with every direction kept.
    """
    return remerge(state, choice or Choice(), limit=limit, seed=seed)
