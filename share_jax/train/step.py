"""The jitted steps: one task's slot is trained, or evaluated, against a frozen base model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from share_jax.core.slots import as_stack
from share_jax.nn.adapt import Adapted
from share_jax.nn.variables import SHARED, TASKS
from share_jax.train.optimizer import apply_updates
from share_jax.typing import Array, PRNGKey, Tree

Forward = Callable[[Tree, Tree, Tree, Any, PRNGKey | None], Any]
"""(base variables, shared, slot, inputs, key of this step's dropout or None) to the model's output."""

Loss = Callable[[Any, Any], tuple[Array, dict[str, Array]]]
"""(model output, batch) to a scalar and further scalars."""


class StepState(NamedTuple):
    """Everything that changes while one task is learnt.

    Attributes:
      shared: the shared tree; it changes in the first task only.
      slot: the task's leaves, without task axis.
      opt_state: the optimizer's state, of trained leaves only.
      step: int32 scalar, updates done in this task.
      key: typed PRNG key of the task; step s draws dropout from fold_in(key, s).
    """

    shared: Tree
    slot: Tree
    opt_state: Any
    step: Array
    key: PRNGKey


def forward_of(model: Any) -> Forward:
    """How a model answers for a slot at hand.

    Args:
      model: an `Adapted`, or a Linen module of one's own whose `__call__` takes `task_id` by name. Inputs that are a
        dict are passed by name, all others as the one positional argument.
    """

    def split(inputs: Any, key: PRNGKey | None) -> tuple[tuple, dict]:
        rngs = {} if key is None else {"rngs": {"dropout": key}}
        return ((), {**inputs, **rngs}) if isinstance(inputs, dict) else ((inputs,), rngs)

    if isinstance(model, Adapted):

        def adapted(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            args, kwargs = split(inputs, key)
            return model.apply_slot({**base, SHARED: shared}, slot, *args, **kwargs)

        return adapted

    def own(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        args, kwargs = split(inputs, key)
        variables = {**base, SHARED: shared, TASKS: as_stack(slot)}
        return model.apply(variables, *args, **kwargs, task_id=jnp.int32(0))

    return own


def begin(shared: Tree, slot: Tree, optimizer: optax.GradientTransformation, key: PRNGKey) -> StepState:
    """The state at the start of a task, with copies of its arrays, so that donating them harms nobody."""
    shared, slot, key = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (dict(shared), dict(slot), key))
    return StepState(shared, slot, optimizer.init({"shared": shared, "slot": slot}), jnp.int32(0), key)


def make_train_step(
    forward: Forward, loss: Loss, optimizer: optax.GradientTransformation, *, train_shared: bool
) -> Callable[[StepState, Tree, Any], tuple[StepState, dict[str, Array]]]:
    """A jitted step (state, base variables, batch) -> (state, metrics); the state is donated.

    It is traced once for all tasks that share shapes: nothing in it depends on which task is learnt or how many there
    are. The gradients of frozen leaves feed nothing and are removed by the compiler.

    Args:
      forward: from `forward_of`.
      loss: called with the model's output and the batch.
      optimizer: from `task_optimizer`, with the same `train_shared`.
      train_shared: True for the first task, False after it.

    Returns:
      The step. `metrics` holds "loss" and what the loss returned beside it. A batch is a dict with "inputs" and
      whatever the loss reads.
    """

    def train_step(state: StepState, base: Tree, batch: Any) -> tuple[StepState, dict[str, Array]]:
        def objective(trained: dict[str, Any]) -> tuple[Array, dict[str, Array]]:
            out = forward(base, trained["shared"], trained["slot"], batch["inputs"], key)
            return loss(out, batch)

        key = jax.random.fold_in(state.key, state.step)
        trained = {"shared": state.shared, "slot": state.slot}
        (value, metrics), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        new = apply_updates(trained, updates, train_shared=train_shared)
        after = StepState(new["shared"], new["slot"], opt_state, state.step + 1, state.key)
        return after, {"loss": value, **metrics}

    return jax.jit(train_step, donate_argnums=0)


def make_eval_step(forward: Forward, loss: Loss) -> Callable[[Tree, Tree, Tree, Any], dict[str, Array]]:
    """A jitted (base variables, shared, slot, batch) -> metrics, without gradients; nothing is donated.

    The metrics are "loss", what the loss returned beside it, and the model's "output".
    """

    def eval_step(base: Tree, shared: Tree, slot: Tree, batch: Any) -> dict[str, Array]:
        out = forward(base, shared, slot, batch["inputs"], None)
        value, metrics = loss(out, batch)
        return {"loss": value, **metrics, "output": out}

    return jax.jit(eval_step)
