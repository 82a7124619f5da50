"""Learning tasks one after another with any batches: a bank goes in, a bank with one more task comes out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax.core import unfreeze

from share_jax.adapted import SHARED, TASKS, AdaptedModel, Forward, as_adapted, check_variables
from share_jax.bank.bank import TaskBank, check_new_name, next_slot, with_room, with_task
from share_jax.bank.slots import read_slot
from share_jax.errors import DivergedError, InputError, entries, message
from share_jax.train import batch_checks
from share_jax.train.divergence import BadLoss, LossWatch, not_finite
from share_jax.train.losses import classification, per_task, regression
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import Loss, StepState, init_state, make_train_step
from share_jax.typing import PRNGKey, Tree

_WEIGHTED = (classification, regression, per_task)
"""The losses for which an example of weight 0 only fills a batch up."""


@dataclass(frozen=True)
class Learner:
    """A frozen model and how its tasks are learnt. Holds compiled steps, and no state of any task.

    Attributes:
      model: an `Adapted`, or a Linen module of one's own whose `__call__` takes `task_id` by name.
      base: the frozen variables, {"params": ..., ...}; never changed.
      transform: optimizer of what trains; clip by global norm inside it.
      loss: (model output, batch) to `LossSums`: sums over the batch's examples, never means.
      head_transform: optimizer of an `Adapted` model's heads; `transform` when None.

    Raises:
      InputError: if `base` has no "params", or a module of one's own is given a `head_transform`.
    """

    model: Any
    base: Tree
    transform: optax.GradientTransformation
    loss: Loss = classification
    head_transform: optax.GradientTransformation | None = None
    _parts: dict[Any, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        model = as_adapted(self.model)
        if model.method is not None or self.base:  # all of a module's own parameters may belong to tasks
            check_variables(self.base, "base of the Learner")
        if self.head_transform is not None and model.method is None:
            got, expected = "an optimizer of the heads", "None for a module of one's own"
            fix = "label the heads in optax.multi_transform, and pass that as transform"
            raise InputError(message("head_transform", got=got, expected=expected, fix=fix))
        forward = model.forward()
        for first in (True, False):
            optimizer = task_optimizer(
                self.transform,
                model.heads,
                train_shared=first,
                method=model.method,
                head_transform=self.head_transform,
            )
            step = make_train_step(forward, self.loss, optimizer, train_shared=first)
            self._parts[first] = (optimizer, step)
        self._parts["forward"] = forward
        self._parts["predict"] = jax.jit(lambda base, shared, slot, inputs: forward(base, shared, slot, inputs, None))
        self._parts["mixed"] = jax.jit(partial(_mixed, model, forward))

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
        return init_state(bank.shared, next_slot(bank), self._parts[self._first(bank)][0], key)

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
          batches: its batches, {"inputs": ..., "labels": ..., ...}, all of one size. Each length of texts among them is
            compiled once, in the first task for the later ones too.
          seed: of the dropout, with the task's number.

        Returns:
          The bank with the task.

        Raises:
          TaskError: if the name is taken, empty or no text.
          InputError: if there are no batches, or fewer than two examples of weight above 0 in all; if a batch is not
            one, is not like the first, does not fit the model or the loss, or has a label that is no class, more
            classes than outputs or a weight below 0; if the stack is full and the model cannot grow it.
          DivergedError: if a loss, or what was trained, is not finite; the bank is as it was.
        """
        check_new_name(bank, name)
        bank = self.with_room(bank, len(bank.names) + 1)
        state = self.begin(bank, jax.random.fold_in(jax.random.key(seed), len(bank.names)))
        watch, examples, step, widths, kinds = LossWatch(), batch_checks.ExampleCount(self.loss in _WEIGHTED), 0, {}, []
        for batch in batches:
            step += 1
            what = f"batch {step} of task {name!r}"
            found = batch_checks.signature(batch, what)
            if found not in widths:  # the first batch, or another length
                batch_checks.check_same(found, next(iter(widths), found), what)
                widths[found] = self._width(state, batch, found, what)
                kinds.append(batch)
            width = widths[found]
            batch_checks.check_labels(batch, width, what)
            examples.add(batch, what)
            answers = {part: batch[part] for part in ("labels", "weights", "classes") if part in batch}
            state, metrics = self.step(bank, state, batch)
            self._refuse(watch.add(step, metrics["loss"], answers), state, name, width, examples)
        if not step:
            fix = "pass at least one batch; a generator can be read only once"
            raise InputError(message(f"batches of task {name!r}", got="none", expected="at least one", fix=fix))
        if (count := examples.total()) < 2:
            got = "one" if count else "none of weight above 0"
            fix = "one example shows one class; give the task more" if count else "weigh with 0 what is padding alone"
            raise InputError(message(f"examples of task {name!r}", got=got, expected="at least two", fix=fix))
        self._refuse(watch.drain(), state, name, widths[found], examples)
        path = not_finite({"shared": state.shared, "slot": state.slot})
        if path is not None:
            raise _diverged(f"{path} of task {name!r} after step {step}", "numbers that are not finite", state)
        after = with_task(bank, name, state.shared, state.slot)
        if self._first(bank):
            self._compile_later(after, kinds)
        return after

    def predict(
        self, bank: TaskBank, name: str | int | np.integer | Sequence[str | int] | np.ndarray | jax.Array, inputs: Any
    ) -> Any:
        """The model's output for a learnt task, or for a batch of different tasks.

        Args:
          bank: what has been learnt.
          name: the batch's task, or each example's, by name or id; the ids may be those of a router.
          inputs: as in a batch.

        Raises:
          TaskError: if no learnt task has this name or id.
          InputError: if there are not as many names as examples, or the model does not take the inputs.
        """
        ids = bank.index(name) if isinstance(name, str) else bank.ids(name)
        try:
            if isinstance(ids, int) or not ids.ndim:
                return self._parts["predict"](self.base, bank.shared, read_slot(bank.tasks, int(ids)), inputs)
            size = jax.tree.leaves(inputs)[0].shape[0]
            if len(ids) != size:
                expected = f"{size}, one per example"
                raise InputError(message("tasks", got=len(ids), expected=expected, fix="name each example's task"))
            return self._parts["mixed"](self.base, bank.shared, bank.tasks, ids, inputs)
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
        optimizer, step = self._parts[False]
        for batch in batches:
            step(init_state(bank.shared, read_slot(bank.tasks, 0), optimizer, jax.random.key(0)), self.base, batch)

    def _width(self, state: StepState, batch: Any, found: batch_checks.Signature, what: str) -> int | None:
        """How many classes the model answers with; None if the loss is not one of classes.

        Raises:
          InputError: if the model, or then the loss, does not take the batch.
        """
        parts = (self.base, state.shared, state.slot, batch["inputs"], state.key)
        out = batch_checks.output_of(lambda: self._parts["forward"](*parts), what)
        classes = self.loss is classification
        if classes:
            batch_checks.check_answers(found, what)
        batch_checks.check_loss(self.loss, out, batch, what)
        return out.shape[-1] if classes else None

    def _refuse(
        self, found: BadLoss | None, state: StepState, name: str, width: int | None, examples: batch_checks.ExampleCount
    ) -> None:
        if found is not None:
            examples.total()  # a weight that is none comes before what it led to
            batch_checks.check_labels(found.note, width, f"batch {found.step} of task {name!r}", fetch=True)
            raise _diverged(f"loss of task {name!r}, step {found.step}", str(found.loss), state)

    def _first(self, bank: TaskBank) -> bool:
        return not bank.names


def _mixed(
    model: AdaptedModel, forward: Forward, base: Tree, shared: Tree, tasks: Tree, ids: jax.Array, inputs: Any
) -> Any:
    return forward(base, shared, model.slot(tasks, ids), inputs, None)


def _diverged(what: str, got: str, state: StepState) -> DivergedError:
    rates = optax.tree_utils.tree_get_all_with_path(state.opt_state, "learning_rate")
    shown = f", now {float(rates[0][1]):.3g}" if rates else " (optax.inject_hyperparams would show it here)"
    fix = f"lower the learning rate{shown}, or clip the gradients; the bank is as it was"
    return DivergedError(message(what, got=got, expected="finite numbers", fix=fix))
