"""Learning tasks one after another with any batches: a bank goes in, a bank with one more task comes out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import optax

from share_jax.core.bank import TaskBank, check_new_name, learnt, next_slot, with_room
from share_jax.core.slots import lift
from share_jax.errors import InputError, line
from share_jax.nn.adapt import Adapted
from share_jax.nn.variables import SHARED, TASKS
from share_jax.train.losses import classification
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import Loss, StepState, begin, forward_of, make_train_step
from share_jax.typing import PRNGKey, Tree


@dataclass(frozen=True)
class Learner:
    """A frozen model and how its tasks are learnt. Holds compiled steps, and no state of any task.

    Attributes:
      model: an `Adapted`, or a Linen module of one's own whose `__call__` takes `task_id` by name.
      base: the frozen variables, {"params": ..., ...}; never changed.
      transform: optimizer of what trains; clip by global norm inside it.
      loss: (model output, batch) to a scalar and a dict of scalars.
      head_transform: optimizer of an `Adapted` model's heads; `transform` when None.
    """

    model: Any
    base: Tree
    transform: optax.GradientTransformation
    loss: Loss = classification
    head_transform: optax.GradientTransformation | None = None
    _parts: dict[Any, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        forward = forward_of(self.model)
        heads = self.model.heads if isinstance(self.model, Adapted) else ()
        for first in (True, False):
            optimizer = task_optimizer(self.transform, heads, train_shared=first, head_transform=self.head_transform)
            step = make_train_step(forward, self.loss, optimizer, train_shared=first)
            self._parts[first] = (optimizer, step)
        self._parts["predict"] = jax.jit(lambda base, shared, slot, inputs: forward(base, shared, slot, inputs, None))

    def start(self, variables: Tree) -> TaskBank:
        """An empty bank on fresh variables.

        Args:
          variables: "shared" and "tasks" as `Adapted.init`, or `init` of a module of one's own, returned them; other
            collections are passed over.
        """
        return TaskBank(variables.get(SHARED, {}), variables[TASKS])

    def begin(self, bank: TaskBank, key: PRNGKey) -> StepState:
        """The state in which the next task's training starts."""
        return begin(bank.shared, next_slot(bank), self._parts[self._first(bank)][0], key)

    def step(self, bank: TaskBank, state: StepState, batch: Any) -> tuple[StepState, dict[str, jax.Array]]:
        """One update of the task that `begin` started; `state` is donated.

        Args:
          bank: the bank that `begin` was given: what is shared trains only while it is empty.
          state: the last state.
          batch: {"inputs": ..., "labels": ..., ...}, of the same shapes every time.
        """
        return self._parts[self._first(bank)][1](state, self.base, batch)

    def learn(self, bank: TaskBank, name: str, batches: Iterable[Any], *, seed: int = 0) -> TaskBank:
        """Learns one more task. Every other task's slot keeps its bits.

        Args:
          bank: what has been learnt.
          name: the new task's name.
          batches: its batches, {"inputs": ..., "labels": ..., ...}.
          seed: of the dropout, with the task's number.

        Returns:
          The bank with the task.

        Raises:
          TaskError: if the name is taken.
          InputError: if there are no batches, or the stack is full and the model cannot grow it.
        """
        check_new_name(bank, name)
        bank = self._with_room(bank)
        state = self.begin(bank, jax.random.fold_in(jax.random.key(seed), len(bank.names)))
        learning = False
        for batch in batches:
            learning = True
            state, _ = self.step(bank, state, batch)
        if not learning:
            mend = "pass at least one batch; a generator can be read only once"
            raise InputError(line(f"batches of task {name!r}", got="none", expected="at least one", mend=mend))
        return learnt(bank, name, state.shared, state.slot)

    def predict(self, bank: TaskBank, name: str, inputs: Any) -> Any:
        """The model's output for a learnt task.

        Raises:
          TaskError: if no task has this name.
        """
        return self._parts["predict"](self.base, bank.shared, lift(bank.tasks, bank.index(name)), inputs)

    def _first(self, bank: TaskBank) -> bool:
        return not bank.names

    def _with_room(self, bank: TaskBank) -> TaskBank:
        needed = len(bank.names) + 1
        if needed <= bank.capacity:
            return bank
        if not isinstance(self.model, Adapted):
            mend = "build the module with a larger num_tasks"
            raise InputError(line("task stack", got="full", expected="a free slot", mend=mend))
        model = self.model
        key = jax.random.fold_in(jax.random.key(0), needed)
        return with_room(bank, lambda more: model.init(key, self.base["params"], more)[TASKS], needed)
