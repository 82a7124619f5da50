"""The bank of a `ShareLearner`: what serves its tasks, and the subspace that they are the tasks of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from share_jax.bank.bank import TaskBank, with_tasks
from share_jax.bank.slots import read_slot
from share_jax.subspace.into_bank import shared_of, slot_of
from share_jax.subspace.state import Report, ShareState, report
from share_jax.trees import nested
from share_jax.typing import Tree


@dataclass(frozen=True)
class ShareBank(TaskBank):
    """A bank of `Share` tasks, as `Learner.predict`, `save_bank` and routers take it.

    Attributes:
        state: the subspace on the host: bases without padding, and what every task has lost since it was learnt.

    Example:
        >>> import numpy as np
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> state = initialize({"cola": {"query": Factors(np.ones((8, 1)), np.ones((1, 6)))}})
        >>> bank = ShareBank({}, {}, ("cola",), state)  # as a ShareLearner makes them
        >>> bank.report()["cola"].error_bound < 1e-5
        True
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
    if not state.tasks:
        return ShareBank(bank.shared, bank.tasks)
    slots = {task: nested({**slot_of(model, state, t), **heads[t]}) for t, task in enumerate(state.tasks)}
    shared = jax.tree.map(jnp.asarray, shared_of(bank, model, state))
    served = with_tasks(TaskBank(bank.shared, bank.tasks), shared, slots)
    return ShareBank(served.shared, served.tasks, served.names, state)


def fresh_slot(model: Any, key: jax.Array, params: Tree) -> tuple[Tree, dict[str, Any]]:
    """The shared tree and one slot of a model, drawn from a key."""
    fresh = model.init(key, params, 1)
    return fresh["shared"], read_slot(fresh["tasks"], 0)
