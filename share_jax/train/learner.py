"""Learning tasks one after another with any batches: a bank goes in, a bank with one more task comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from flax.core import unfreeze

from share_jax.adapted import SHARED, TASKS, Forward, as_adapted, check_variables
from share_jax.bank.bank import TaskBank, check_new_name, next_slot, with_room, with_task
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError, entries, message
from share_jax.train import batch_checks
from share_jax.train.loop import Hooks
from share_jax.train.phase import Phase, make_phase
from share_jax.train.placed_step import placed_base, placed_predict
from share_jax.train.start_from import StartFrom, check_start
from share_jax.train.starting_slot import started
from share_jax.train.task_learner import TaskLearner
from share_jax.train.update import StepState
from share_jax.typing import PRNGKey, Tree


@dataclass(frozen=True)
class Learner(TaskLearner[TaskBank]):
    """A frozen model and how its tasks are learnt. Holds compiled steps, and no state of any task.

    Attributes:
        model: an `Adapted`, or a Linen module of one's own whose `__call__` takes `task_id` by name.
        base: the frozen variables, {"params": ..., ...}; never changed.
        transform: optimizer of what trains; clip by global norm inside it.
        loss: (model output, batch) to `LossSums`: sums over the batch's examples, never means.
        head_transform: optimizer of an `Adapted` model's heads; `transform` when None.
        layout: where arrays lie on a mesh, from `layout_of`; one device when None. What is learnt comes back whole, so
            a bank does not depend on it.
        accumulate: microbatches of each batch, computed one after another.
        remat: what the backward pass computes again instead of keeping it; nothing when None.
        train_kwargs: arguments of the model by name while a task is learnt, such as {"train": True}. What the model
            writes into collections named by "mutable" is dropped there, as the base is frozen.
        predict_kwargs: the same for predictions, such as {"train": False}; with "mutable" they are pairs of an output
            and these collections. An `Adapted` has the flags of its example call without either.
        rngs: streams of random numbers that a Linen model draws from while a task is learnt.
        output: what of the model's output the loss and predictions get: a function of it, a name such as "logits", or
            a place; all of it when None.
        unbatched: inputs without a batch axis, such as a graph's edges or a key: by name, or by place as "0".
        twin: the model as it predicts, with the same parameters (`Adapted.with_model`); `model` when None.
        start_from: where a new task's adapter starts: "zero", so that the model is the frozen one; or "last", a copy of
            the last learnt task's, which needs fewer updates when tasks are alike. Heads start fresh.
        compile_ahead: whether the end of the first task compiles the step of later ones, so that none of them compiles;
            False where the process ends with the task.
        placed: `base` where steps and `answer` read it.
        answer: (base variables, shared, slot or `TaskSlots`, inputs) to the model's output, compiled.

    Raises:
        InputError: if `base` has no "params", a module of one's own is given a `head_transform`, or `start_from` is
            neither.

    Example:
        >>> import flax.linen as nn
        >>> import optax
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.eye(4, dtype=np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> learner = Learner(adapted, base, optax.adam(0.1))
        >>> bank = learner.start(adapted.init(jax.random.key(1), base["params"], num_tasks=2))
        >>> bank = learner.learn(bank, "weather", [{"inputs": x, "labels": np.array([0, 1, 2, 0])}] * 20)
        >>> learner.predict(bank, "weather", x).argmax(axis=1)
        Array([0, 1, 2, 0], dtype=int32)
    """

    start_from: StartFrom = field(default="zero", kw_only=True)
    compile_ahead: bool = field(default=True, kw_only=True)
    placed: Tree = field(init=False, repr=False, compare=False)
    answer: Any = field(init=False, repr=False, compare=False)
    _first: Phase = field(init=False, repr=False, compare=False)
    _later: Phase = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        model = as_adapted(self.model)
        check_start(self.start_from)
        if model.method is not None or self.base:  # all of a module's own parameters may belong to tasks
            check_variables(self.base, "base of the Learner")
        if self.head_transform is not None and model.method is None:
            got, expected = "an optimizer of the heads", "None for a module of one's own"
            fix = "label the heads in optax.multi_transform, and pass that as transform"
            raise InputError(message("head_transform", got=got, expected=expected, fix=fix))
        first, later = (make_phase(model, train_shared=shared, **self.training) for shared in (True, False))
        made = {
            "placed": placed_base(self.layout, self.base),
            "_first": first,
            "_later": later,
            "answer": placed_predict(self._predicting(later), self.layout),
        }
        for name, part in made.items():
            object.__setattr__(self, name, part)

    def _predicting(self, later: Phase) -> Forward:
        """The forward pass of predictions, by the twin where there is one.

        Raises:
            InputError: if the twin has other targets or heads.
        """
        if self.twin is None:
            return later.forward
        model, twin = as_adapted(self.model), as_adapted(self.twin)
        if (model.targets, model.heads, model.method) != (twin.targets, twin.heads, twin.method):
            expected, fix = "the targets and heads of the model", "pass adapted.with_model(other)"
            raise InputError(message("twin", got="other targets, heads or method", expected=expected, fix=fix))
        return later.call.forward(twin.forward(self.remat))

    def start(self, variables: Tree) -> TaskBank:
        """An empty bank on fresh variables.

        Args:
            variables: "shared" and "tasks" as `Adapted.init`, or `init` of a module of one's own, returned them; other
                collections are passed over.

        Raises:
            InputError: if there are no "tasks".
        """
        if not isinstance(variables, Mapping) or TASKS not in variables:
            fix = "pass what Adapted.init, or init of a module with layers of share_jax, returned"
            raise InputError(
                message("variables", got=entries(variables, 6), expected=f"a dict with '{TASKS}'", fix=fix)
            )
        return TaskBank(unfreeze(variables.get(SHARED, {})), unfreeze(variables[TASKS]))

    def begin(self, bank: TaskBank, key: PRNGKey) -> StepState:
        """The state in which the next task's training starts."""
        slot = started(next_slot(bank), bank, self.start_from, as_adapted(self.model).heads)
        return self._phase_of(bank).begin(bank.shared, slot, key)

    def step(self, bank: TaskBank, state: StepState, batch: Any) -> tuple[StepState, dict[str, jax.Array]]:
        """One update of the task that `begin` started; `state` is donated.

        Args:
            bank: the bank that `begin` was given: what is shared trains only while it is empty.
            state: the last state.
            batch: {"inputs": ..., "labels": ..., ...}, of the same shapes every time.
        """
        return self._phase_of(bank).step(state, self.placed, batch)

    def _learnt(self, bank: TaskBank, name: str, batches: Any, key: PRNGKey, hooks: Hooks) -> TaskBank:
        check_new_name(bank, name)
        bank = self.with_room(bank, len(bank.names) + 1)
        phase = self._phase_of(bank)
        checks = phase.checks(name, self.placed)
        state = self.begin(bank, jax.random.fold_in(key, len(bank.names)))
        end = phase.train(state, self.placed, name, batches, replace(hooks, checks=checks))
        after = with_task(bank, name, end.shared, end.slot)
        if not bank.names and self.compile_ahead:
            self._compile_later(after, checks.kinds)
        return after

    def predict(
        self,
        bank: TaskBank,
        name: str | int | np.integer | Sequence[str | int] | np.ndarray | jax.Array,
        inputs: Any,
        *,
        state: Tree | None = None,
    ) -> Any:
        """The model's output for a learnt task, or for a batch of different tasks.

        Args:
            bank: what has been learnt.
            name: the batch's task, or each example's, by name or id; the ids may be those of a router.
            inputs: as in a batch.
            state: collections in place of the base's, such as the cache that the last call returned.

        Raises:
            TaskError: if no learnt task has this name or id.
            InputError: if there are not as many names as examples, or the model does not take the inputs.
        """
        ids = bank.index(name) if isinstance(name, str) else bank.ids(name)
        try:
            if isinstance(ids, int) or not ids.ndim:
                slot = read_slot(bank.tasks, int(ids))
            else:
                size = batch_checks.examples_of(inputs, self.call.shares)
                if len(ids) != size:
                    expected = "one for the batch" if size is None else f"{size}, one per example"
                    raise InputError(message("tasks", got=len(ids), expected=expected, fix="name each example's task"))
                slot = as_adapted(self.model).slot(bank.tasks, ids)
            base = self.placed if state is None else {**self.placed, **placed_base(self.layout, state)}
            return self.answer(base, bank.shared, slot, inputs)
        except batch_checks.NOT_TAKEN as error:
            batch_checks.refuse(error, "inputs")

    def with_room(self, bank: TaskBank, needed: int) -> TaskBank:
        """The bank with a stack of at least `needed` slots; learnt slots keep their bits.

        Raises:
            InputError: if there are fewer and the model cannot grow the stack.
        """
        if needed <= bank.capacity:
            return bank
        model = as_adapted(self.model)
        if model.method is None:
            got, fix = f"{bank.capacity} slots", "build the module with a larger num_tasks"
            raise InputError(message("task stack", got=got, expected=f"{needed}, one per task", fix=fix))
        key = jax.random.fold_in(jax.random.key(0), needed)
        return with_room(bank, lambda more: model.init(key, self.base["params"], more)[TASKS], needed)

    def _compile_later(self, bank: TaskBank, batches: Sequence[Any]) -> None:
        """Runs a later task's step once on a batch of each shape and drops what comes of it: no later task compiles."""
        phase = self._later
        for batch in batches:
            state = phase.begin(bank.shared, read_slot(bank.tasks, 0), jax.random.key(0))
            phase.step(state, self.placed, batch)

    def _phase_of(self, bank: TaskBank) -> Phase:
        return self._later if bank.names else self._first
