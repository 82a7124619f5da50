"""The bank of a `ShareLearner`: what serves its tasks, and the subspace that they are the tasks of."""

from dataclasses import dataclass, field
from typing import Any

from share_jax.bank.bank import TaskBank
from share_jax.subspace.from_bank import bank_state
from share_jax.subspace.state import Report, ShareState, report


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


def with_record(bank: TaskBank, adapted: Any) -> ShareBank:
    """The bank with its subspace; the same one if it has it.

    Of a bank that comes from elsewhere, as from `load_bank`, nothing is known of what its tasks have lost: bounds count
    from here.

    Args:
        bank: of `Share` tasks.
        adapted: the model that it is of.
    """
    if isinstance(bank, ShareBank) and bank.state.tasks == bank.names:
        return bank
    state = bank_state(bank, adapted) if bank.names else ShareState()
    return ShareBank(bank.shared, bank.tasks, bank.names, state)
