"""The leaves that tasks of one evolving subspace are saved as, and the subspace out of them.

What is shared holds the bases and what every task has lost, by kernel; a task's slot holds its coefficients by kernel,
and its heads.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from share_jax.checkpoint import arrays, checkpoint
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.subspace.serving import STATE_FIELDS, coefficient_arrays, state_arrays, state_of
from share_jax.subspace.state import ShareState
from share_jax.trees import flat, nested
from share_jax.typing import Tree


def shared_tree(state: ShareState) -> dict[str, Any]:
    """What is shared, as it is saved."""
    return _as_tree(state_arrays(state))


def slot_tree(state: ShareState, index: int, heads: Mapping[str, Any]) -> dict[str, Any]:
    """A task's slot, as it is saved."""
    return {"adapter": _as_tree(coefficient_arrays(state, index)), **({"head": nested(heads)} if heads else {})}


def holds_state(store: Checkpoint) -> bool:
    """Whether the tasks of a checkpoint are saved in this form."""
    names = {path.rpartition("/")[2] for path in (store.manifest.shared or {}).get("leaves", {})}
    return names >= set(STATE_FIELDS)


def saved_state(store: Checkpoint) -> tuple[ShareState, list[dict[str, Any]]]:
    """The subspace of a checkpoint with tasks in this form, and every task's heads by path.

    Raises:
        FormatError: if a file is damaged.
    """
    shared = checkpoint.load_shared(store, arrays.like_of(store.manifest.shared or {}))
    slots = [checkpoint.load_task(store, name, arrays.like_of(store.record(name))) for name in store.names]
    state = state_of(store.names, _as_arrays(shared), [_as_arrays(slot["adapter"]) for slot in slots])
    return state, [flat(slot.get("head", {})) for slot in slots]


def _as_tree(leaves: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    return nested({f"{target}/{name}": array for (target, name), array in leaves.items()})


def _as_arrays(tree: Tree) -> dict[tuple[str, str], np.ndarray]:
    leaves = [(path.rpartition("/"), leaf) for path, leaf in flat(tree).items()]
    return {(target, name): np.asarray(leaf) for (target, _, name), leaf in leaves}
