"""The bank of a `ShareLearner`: what serves its tasks, and the subspace that they are the tasks of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.layers.kernel_trees import as_tree
from share_jax.subspace.serving import shared_leaves, task_leaves
from share_jax.subspace.state import Report, ShareState, report
from share_jax.trees import flat, nested
from share_jax.typing import Tree


@dataclass(frozen=True)
class ShareBank(TaskBank):
    """A bank of `Share` tasks, as `Learner.predict`, `save_bank` and routers take it.

    Attributes:
      state: the subspace on the host: bases without padding, and what every task has lost since it was learnt.
    """

    state: ShareState = field(default_factory=ShareState)

    def report(self) -> dict[str, Report]:
        """Of every task, relative to its update's norm: the change in the last merge, and the bound on its error."""
        return report(self.state)


def bank_of_state(model: Any, bank: TaskBank, state: ShareState, heads: Sequence[Mapping[str, Any]]) -> ShareBank:
    """The bank that serves a subspace.

    Args:
      model: adapted with `Share`.
      bank: with room for the state's tasks; its further slots stay as they are.
      state: the subspace, in the columns geometry.
      heads: of every task, by path.

    Raises:
      InputError: if the state has more columns than the model.
    """
    k, p, tasks = model.method.num_basis, model.method.pseudo_rank, len(state.tasks)
    shared = as_tree(model.targets, {name: shared_leaves(layer, k) for name, layer in state.layers.items()})
    slots = [
        {**flat(as_tree(model.targets, {n: task_leaves(x, t, k, p) for n, x in state.layers.items()})), **heads[t]}
        for t in range(tasks)
    ]

    def stacked(path: str, fresh: Any) -> jax.Array:
        own = np.stack([np.asarray(slot[path]) for slot in slots])
        return jnp.asarray(np.concatenate([own, np.asarray(fresh)[tasks:]]))

    stack = nested({path: stacked(path, fresh) for path, fresh in flat(bank.tasks).items()}) if tasks else bank.tasks
    return ShareBank(shared if tasks else bank.shared, stack, state.tasks, state)


def fresh_slot(model: Any, key: jax.Array, params: Tree) -> tuple[Tree, dict[str, Any]]:
    """The shared tree and one slot of a model, drawn from a key."""
    fresh = model.init(key, params, 1)
    return fresh["shared"], read_slot(fresh["tasks"], 0)
