"""The jitted steps: training and prediction with one task's slot on a frozen base model."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from share_jax.adapted import Forward, forward_of
from share_jax.errors import InputError, first_line, message
from share_jax.sharding.gathered_weights import gathering
from share_jax.sharding.layout import Layout
from share_jax.sharding.placement import is_key
from share_jax.train.update import Loss, NeverTrained, StepState, make_update
from share_jax.typing import Array, PRNGKey, Tree

__all__ = ["Forward", "Loss", "StepState", "forward_of", "init_state", "make_train_step"]


def init_state(shared: Tree, slot: Tree, optimizer: optax.GradientTransformation, key: PRNGKey) -> StepState:
    """The state at the start of a task, with copies of its arrays, so that they are safe to donate.

    Raises:
        InputError: the optimizer was made for another tree, as with a mask over the model's parameters.
    """
    shared, slot, key = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (dict(shared), dict(slot), key))
    trained = {"shared": shared, "slot": slot}
    try:
        state = optimizer.init(trained)
    except (ValueError, TypeError, KeyError) as error:
        got = f"one made for another tree ({first_line(error)})"
        expected = 'one for {"shared": ..., "slot": ...}, what trains'
        fix = "pass a mask or labels as a function of the tree, such as mask=lambda tree: jax.tree.map(rule, tree)"
        raise InputError(message("optimizer", got=got, expected=expected, fix=fix)) from error
    # what an optimizer was made with, as the key of `optax.add_noise`, is its own still
    state = jax.tree.map(lambda leaf: leaf.copy() if _is_own(leaf) else leaf, state)
    return StepState(shared, slot, state, jnp.int32(0), key)


def _is_own(leaf: Any) -> bool:
    """Whether a leaf of an optimizer's state may be an array that the optimizer holds: a key, of either kind."""
    return is_key(leaf) or (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.unsignedinteger))


def make_train_step(
    forward: Forward,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    train_shared: bool,
    accumulate: int = 1,
    layout: Layout | None = None,
    never: NeverTrained | None = None,
) -> Any:
    """A jitted step (state, base variables, batch) -> (state, metrics); the state is donated.

    It is traced once for all tasks that share shapes: nothing in it depends on which task is learnt or how many there
    are. Only what trains is differentiated. With a `layout` the same step runs over its mesh; `pmap.make_pmap_step` is
    the third way. All three compute one function of the global batch: the mean over the weight of all its examples.

    Args:
        forward: from `forward_of`.
        loss: called with the model's output and the batch.
        optimizer: from `task_optimizer`, with the same `train_shared`.
        train_shared: True for the first task, False after it.
        accumulate: microbatches into which each batch is split, computed one after another: less memory for
            activations, the same update up to rounding. Dropout is drawn anew in each.
        layout: where everything lies on a mesh; one device when None.
        never: says which leaves no step changes, beyond those that the optimizer knows.

    Returns:
        The step. `metrics` holds "loss", the mean over the examples that count, and the loss's own metrics. A batch is
        a dict with "inputs" and whatever the loss reads; `sharding.microbatches` says what of it is split.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> from share_jax.train import classification, task_optimizer
        >>> model, x = nn.Dense(3), jnp.eye(4)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> optimizer = task_optimizer(optax.sgd(0.1), train_shared=True)
        >>> step = make_train_step(forward_of(adapted), classification, optimizer, train_shared=True)
        >>> slot = share_jax.bank.read_slot(trees["tasks"], 0)
        >>> state = init_state(trees["shared"], slot, optimizer, jax.random.key(2))
        >>> state, metrics = step(state, base, {"inputs": x, "labels": jnp.array([0, 1, 2, 0])})
        >>> int(state.step), sorted(metrics)
        (1, ['correct', 'examples', 'loss'])
    """
    options: Any = {"train_shared": train_shared, "accumulate": accumulate, "never": never}
    if layout is None:
        return jax.jit(make_update(forward, loss, optimizer, **options), donate_argnums=0)
    update = make_update(gathering(forward, layout), loss, optimizer, **options, pin=layout.pin_batch)

    def train_step(state: StepState, base: Tree, batch: Any) -> tuple[StepState, dict[str, Array]]:
        after, metrics = update(state, base, batch)
        return layout.pin_state(after), layout.pin_replicated(metrics)

    return jax.jit(train_step, donate_argnums=0)


def make_predict(forward: Forward, layout: Layout | None = None) -> Any:
    """A jitted (base variables, shared, slot, inputs) -> the model's output, whole on every device.

    The slot is one task's, or `TaskSlots` from `AdaptedModel.slot` with a task for each example.

    Args:
        forward: from `forward_of`.
        layout: where everything lies on a mesh; one device when None.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> model, x = nn.Dense(3), jnp.eye(4)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> predict = make_predict(forward_of(adapted))
        >>> predict(base, trees["shared"], adapted.slot(trees["tasks"], jnp.array([0, 1, 1, 0])), x).shape
        (4, 3)
    """
    run = forward if layout is None else gathering(forward, layout)

    def predict(base: Tree, shared: Tree, slot: Tree, inputs: Any) -> Any:
        if layout is None:
            return run(base, shared, slot, inputs, None)
        return layout.pin_replicated(run(base, shared, slot, layout.pin_batch(inputs), None))

    return jax.jit(predict)
