"""The train step under `jax.pmap`, for programs that are built around it.

Where pmap stands: since JAX 0.8 it is in maintenance mode, and since 0.9.2 it is nothing but a wrapper around
`jax.jit` and `jax.shard_map`, with another interface: state and weights carry a leading axis of devices, and each
device holds all of them. JAX asks new code to use `jit` with shardings or `jax.shard_map`
(https://docs.jax.dev/en/latest/migrate_pmap.html). `make_train_step` with a `Layout` does what this does, can shard
the weights, and runs on many hosts: prefer it. The two are held equal by tests.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from share_jax.sharding.microbatches import batch_size, check_divides
from share_jax.train.update import Forward, Loss, make_update
from share_jax.typing import Array

AXIS = "devices"


def make_pmap_step(
    forward: Forward, loss: Loss, optimizer: optax.GradientTransformation, *, train_shared: bool, accumulate: int = 1
) -> Any:
    """`make_train_step` as a pmapped (state, base variables, batch) -> (state, metrics); the state is donated.

    State and base come from `replicate`, the batch from `split`. The loss is the mean over the weight of the global
    batch, on whatever device its examples lie. The metrics are the same on each device. Dropout differs from device to
    device, and so from that of one device.

    Args:
        forward: from `forward_of`.
        loss: called with the model's output and one device's part of the batch.
        optimizer: from `task_optimizer`, with the same `train_shared`.
        train_shared: True for the first task, False after it.
        accumulate: microbatches on each device.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> from share_jax.train import classification, task_optimizer
        >>> from share_jax.train.step import forward_of, init_state
        >>> model, x = nn.Dense(3), jnp.ones((jax.device_count(), 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> optimizer = task_optimizer(optax.sgd(0.1), train_shared=True)
        >>> step = make_pmap_step(forward_of(adapted), classification, optimizer, train_shared=True)
        >>> slot = share_jax.bank.read_slot(trees["tasks"], 0)
        >>> state = init_state(trees["shared"], slot, optimizer, jax.random.key(2))
        >>> batch = split({"inputs": x, "labels": jnp.zeros(len(x), jnp.int32)})
        >>> state, metrics = step(replicate(state), replicate(base), batch)
        >>> int(unreplicate(state).step)
        1
    """
    update = make_update(forward, loss, optimizer, train_shared=train_shared, accumulate=accumulate, axis=AXIS)
    return jax.pmap(update, axis_name=AXIS, donate_argnums=0)


def _stack(leaves: Sequence[Any], devices: Sequence[Any]) -> Array:
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
    return jax.device_put(jnp.stack(leaves), sharding)


def replicate(tree: Any) -> Any:
    """The tree with a leading axis of this process's devices, a copy on each."""
    devices = jax.local_devices()
    return jax.tree.map(lambda leaf: _stack([leaf] * len(devices), devices), tree)


def unreplicate(tree: Any) -> Any:
    """The first device's copy."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def split(batch: Any) -> Any:
    """A batch with a leading axis of this process's devices: examples are split in blocks, scalars copied.

    Raises:
        InputError: if the devices do not divide the batch.
    """
    devices = jax.local_devices()
    count = len(devices)
    fix = "change the batch size; the last batch of an epoch is padded with weight 0"
    check_divides("examples in a batch", batch_size(batch), count, fix)

    def part(leaf: Any) -> Array:
        blocks = np.split(np.asarray(leaf), count) if leaf.ndim else [np.asarray(leaf)] * count
        return _stack(blocks, devices)

    return jax.tree.map(part, batch)
