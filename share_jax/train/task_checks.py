"""The checks of one task's batches while it is learnt, as the loop over its steps calls them."""

from typing import Any

from share_jax.errors import InputError, message
from share_jax.train import batch_checks
from share_jax.train.batch_checks import ExampleCount, Signature
from share_jax.train.divergence import BadLoss
from share_jax.train.losses import TaskLoss
from share_jax.train.model_call import ModelCall, described
from share_jax.train.update import Forward, Loss, StepState
from share_jax.typing import Tree

ENOUGH = 2
"""Examples of a batch whose arrays do not say how many it has, such as one graph."""

_NOT_FINITE = "not finite"
"""Where a batch's inputs are no numbers, beside what is kept of it."""


class TaskChecks:
    """Refuses batches that do not fit the model, the loss or each other, and tasks with too few examples."""

    def __init__(self, task: str, forward: Forward, loss: Loss, base: Tree, call: ModelCall) -> None:
        """Has seen no batch yet."""
        self._task, self._forward, self._loss, self._base = task, forward, loss, base
        self._shares = call.shares if call.unbatched else batch_checks.none
        self._weighted = isinstance(loss, TaskLoss) and loss.weighted
        self._examples = ExampleCount(self._weighted)
        self._widths: dict[Signature, int | None] = {}
        self._width: int | None = None
        self._seen = 0
        self.kinds: list[Any] = []
        """One batch of each shape."""

    def before(self, batch: Any, number: int, state: StepState) -> dict[str, Any]:
        """Refuses a batch; what later refusals need is kept for `explain`."""
        what = f"batch {number} of task {self._task!r}"
        found = batch_checks.signature(batch, what, self._shares)
        if found not in self._widths:  # the first batch, or another length
            batch_checks.check_same(found, next(iter(self._widths), found), what, self._shares)
            self._widths[found] = self._outputs(state, batch, found, what)
            self.kinds.append(batch)
        self._width = self._widths[found]
        batch_checks.check_labels(batch, self._width, what)
        if isinstance(self._loss, TaskLoss):  # another loss may give NaN a meaning
            batch_checks.check_numbers(batch, what, weighted=self._weighted)
        count = batch_checks.counted(found, self._shares)
        self._examples.add(batch, what, ENOUGH if count is None else count)
        self._seen += 1
        kept = {part: batch[part] for part in ("labels", "weights", "classes") if part in batch}
        return {**kept, _NOT_FINITE: batch_checks.not_finite_input(batch["inputs"])}

    def explain(self, bad: BadLoss) -> None:
        """Refuses a weight, a label or an input that is none, which made the loss a bad one."""
        self._examples.total()  # a weight that is none comes before what it led to
        what = f"batch {bad.step} of task {self._task!r}"
        batch_checks.check_labels(bad.note, self._width, what, fetch=True)
        batch_checks.check_numbers(bad.note, what, weighted=self._weighted, fetch=True)
        batch_checks.refuse_input(bad.note[_NOT_FINITE], what)

    def after(self, steps: int) -> None:
        """Refuses a task without batches, or with fewer than two examples in all, unless it was resumed."""
        if not steps:
            fix = "pass at least one batch; a generator can be read only once"
            raise InputError(message(f"batches of task {self._task!r}", got="none", expected="at least one", fix=fix))
        if (count := self._examples.total()) < 2 and self._seen == steps:
            got = "one" if count else "none of weight above 0"
            fix = "one example shows one class; give the task more" if count else "weigh with 0 what is padding alone"
            raise InputError(message(f"examples of task {self._task!r}", got=got, expected="at least two", fix=fix))

    def _outputs(self, state: StepState, batch: Any, found: Signature, what: str) -> int | None:
        """How many classes the model has outputs for; None if the loss is not one of classes."""
        parts = (self._base, state.shared, state.slot, batch["inputs"], state.key)
        out = batch_checks.output_of(lambda: self._forward(*parts), what)
        classes = isinstance(self._loss, TaskLoss) and self._loss.classes
        if classes:
            if not hasattr(out, "shape"):
                fix = "pass output= the name or the place of the logits, or a function of the model's output"
                got = described(out)
                raise InputError(message(f"output for {what}", got=got, expected="an array of logits", fix=fix))
            batch_checks.check_answers(found, what, self._shares)
        batch_checks.check_loss(self._loss, out, batch, what)
        return out.shape[-1] if classes else None
