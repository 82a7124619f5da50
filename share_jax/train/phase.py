"""One way of training a task's slot: the model, which of its leaves train, and the compiled step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import optax

from share_jax.adapted import Forward, as_adapted
from share_jax.number_checks import whole_number
from share_jax.ops.remat_policy import Remat
from share_jax.sharding.layout import Layout
from share_jax.train.batches import opener
from share_jax.train.loop import Hooks, run_steps
from share_jax.train.model_call import PLAIN, ModelCall
from share_jax.train.optimizer import task_optimizer
from share_jax.train.placed_step import PlacedStep
from share_jax.train.step import init_state, make_train_step
from share_jax.train.task_checks import TaskChecks
from share_jax.train.update import Loss, StepState
from share_jax.typing import PRNGKey, Tree


@dataclass(frozen=True)
class Phase:
    """How a slot trains. Made by `make_phase`.

    Attributes:
        model: an `Adapted`, or a module of one's own.
        forward: the model's output for a slot.
        loss: (model output, batch) to `LossSums`.
        optimizer: of what trains.
        step: the train step, where it runs.
        call: what the model is called with beside the inputs.
    """

    model: Any
    forward: Forward
    loss: Loss
    optimizer: optax.GradientTransformation
    step: PlacedStep
    call: ModelCall = PLAIN

    def begin(self, shared: Tree, slot: Tree, key: PRNGKey) -> StepState:
        """The state in which a slot's training starts, of copies."""
        return self.step.place(init_state(shared, slot, self.optimizer, key))

    def compiled(self, state: StepState, base: Tree, samples: Sequence[Any]) -> "Phase":
        """The phase with its step compiled ahead; see `PlacedStep.compile`."""
        return replace(self, step=self.step.compile(state, base, samples))

    def checks(self, task: str, base: Tree) -> TaskChecks:
        """The checks of a task's batches against this model and loss."""
        return TaskChecks(task, self.forward, self.loss, base, self.call)

    def train(self, state: StepState, base: Tree, task: str, batches: Any, hooks: Hooks) -> StepState:
        """Trains a slot until the batches end; see `run_steps`."""
        steps = len(batches) if hasattr(batches, "__len__") else None
        return run_steps(self.step, state, base, task, opener(batches), steps=steps, hooks=hooks)


def make_phase(
    model: Any,
    *,
    transform: optax.GradientTransformation,
    loss: Loss,
    train_shared: bool,
    head_transform: optax.GradientTransformation | None = None,
    layout: Layout | None = None,
    accumulate: int = 1,
    remat: Remat | None = None,
    call: ModelCall = PLAIN,
) -> Phase:
    """A phase of a model.

    Args:
        model: an `Adapted`, or a module of one's own.
        transform: optimizer of what trains.
        loss: (model output, batch) to `LossSums`.
        train_shared: whether what is shared trains.
        head_transform: optimizer of an `Adapted` model's heads; `transform` when None.
        layout: where arrays lie on a mesh; one device when None.
        accumulate: microbatches of each batch.
        remat: what the backward pass computes again; nothing when None.
        call: what the model is called with beside the inputs.
    """
    accumulate = whole_number("accumulate", accumulate, 1)
    model = as_adapted(model)
    optimizer = task_optimizer(
        transform, model.heads, train_shared=train_shared, method=model.method, head_transform=head_transform
    )
    forward, options = call.forward(model.forward(remat)), {"train_shared": train_shared, "accumulate": accumulate}
    asked = getattr(model, "never_trained", None)  # of a module of one's own, whose layers have each their method

    def never(base: Tree, trained: Tree, inputs: Any, key: PRNGKey) -> frozenset[str]:
        return frozenset() if asked is None else asked(base, trained, call.inputs(inputs, training=True), key)

    step = make_train_step(forward, loss, optimizer, **options, layout=layout, never=never)
    return Phase(model, forward, loss, optimizer, PlacedStep(step, layout), call)
