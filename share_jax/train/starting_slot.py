"""The slot in which a new task's training starts: a fresh one, or a copy of the last task's adapter."""

from collections.abc import Collection
from typing import Any

import jax

from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.train.start_from import StartFrom
from share_jax.trees import flat, nested
from share_jax.typing import Tree


def fresh_slot(model: Any, key: jax.Array, params: Tree) -> tuple[Tree, dict[str, Any]]:
    """The shared tree and one slot of a model, drawn from a key."""
    fresh = model.init(key, params, 1)
    return fresh["shared"], read_slot(fresh["tasks"], 0)


def started(fresh: Any, bank: TaskBank, start_from: StartFrom, heads: Collection[str]) -> Any:
    """The slot in which a new task's training starts.

    Args:
        fresh: a slot as it was initialised.
        bank: what has been learnt; learnt slots are read alone.
        start_from: where the adapter starts; without a learnt task it is always fresh.
        heads: paths of what a task owns whole, which stays fresh.
    """
    if start_from == "zero" or not bank.names:
        return fresh
    last = flat(read_slot(bank.tasks, len(bank.names) - 1))
    return nested(flat(fresh) | {path: leaf for path, leaf in last.items() if path not in heads})
