"""One update of one task as a pure function: what every way of running a train step runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from share_jax.adapted import Forward
from share_jax.errors import InputError, message
from share_jax.sharding.microbatches import sum_over_parts
from share_jax.train.losses import LossSums, inverse, report
from share_jax.train.optimizer import apply_updates, with_leaves_of
from share_jax.typing import Array, PRNGKey, Tree

Loss = Callable[[Any, Any], LossSums]
"""(model output, batch) to sums over the batch's examples."""

NeverTrained = Callable[[Tree, Tree, Any, PRNGKey], frozenset[str]]
"""(base variables, {"shared": ..., "slot": ...}, inputs, key) to the paths of leaves that no step changes."""


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


Update = Callable[[StepState, Tree, Any], tuple[StepState, dict[str, Array]]]
"""(state, base variables, batch) to the next state and the metrics of the batch."""


def same(tree: Any) -> Any:
    """The tree itself."""
    return tree


def checked(sums: Any) -> LossSums:
    """What a loss returned.

    Raises:
        InputError: if it is not `LossSums`, as the mean and dict that many losses return.
    """
    if not isinstance(sums, LossSums):
        fix = "return LossSums(total, weight, metrics) from share_jax.train.losses"
        raise InputError(message("loss", got=type(sums).__name__, expected="sums over the examples", fix=fix))
    return sums


def make_update(
    forward: Forward,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    train_shared: bool,
    accumulate: int = 1,
    pin: Callable[[Any], Any] = same,
    axis: str | None = None,
    never: NeverTrained | None = None,
) -> Update:
    """The update of `share_jax.train.step.make_train_step`, without any compiling.

    The loss is a mean over the weight of the *global* batch: gradients and metrics are summed over microbatches, and
    over the devices of a mapped axis, before the one division.

    Args:
        forward: from `forward_of`.
        loss: called with the model's output and the batch, or a part of it.
        optimizer: from `task_optimizer`, with the same `train_shared`.
        train_shared: True for the first task, False after it.
        accumulate: microbatches, computed one after another.
        pin: applied to the batch and to each microbatch, to fix where its examples lie.
        axis: name of a mapped axis over which the batch is split, as in `jax.pmap`.
        never: says which leaves no step changes, beyond those that the optimizer knows; asked once, when it is traced.
    """
    transform = optax.with_extra_args_support(optimizer)  # the loss, for those that follow it

    def update(state: StepState, base: Tree, batch: Any) -> tuple[StepState, dict[str, Array]]:
        trained = {"shared": state.shared, "slot": state.slot}
        wanted = trained if train_shared else {"slot": state.slot}
        key = jax.random.fold_in(state.key, state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))

        def run(part: Any, key: PRNGKey) -> tuple[LossSums, Any]:
            def objective(wanted: dict[str, Any]) -> tuple[Array, LossSums]:
                trees = {**trained, **wanted}
                sums = checked(loss(forward(base, trees["shared"], trees["slot"], part["inputs"], key), part))
                return sums.total, sums

            (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(wanted)
            return sums, grads

        whole = pin(batch)
        if accumulate == 1:
            both = run(whole, key)
        else:
            both = sum_over_parts(lambda part, i: run(part, jax.random.fold_in(key, i)), whole, accumulate, pin)
        sums, grads = both if axis is None else jax.lax.psum(both, axis)
        scale = inverse(sums.weight)
        grads = jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), grads)
        grads = grads if train_shared else {"shared": jax.tree.map(jnp.zeros_like, state.shared), **grads}
        fixed = frozenset() if never is None else never(base, trained, whole["inputs"], key)
        if fixed:
            grads = with_leaves_of(jax.tree.map(jnp.zeros_like, grads), grads, fixed)
        updates, opt_state = transform.update(grads, state.opt_state, trained, value=sums.total * scale)
        new = apply_updates(trained, updates, train_shared=train_shared)
        if fixed:
            new = with_leaves_of(trained, new, fixed)
        return StepState(new["shared"], new["slot"], opt_state, state.step + 1, state.key), report(sums)

    return update
