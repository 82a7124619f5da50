"""A head per task in a model of one's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from share_jax.bank.slots import as_task_id, gather
from share_jax.layers.deltas import check_ids
from share_jax.linen.variables import TASKS
from share_jax.typing import Array, TaskId


class TaskHead(nn.Module):
    """A Dense layer of which each task owns kernel and bias; all of it lives in the collection `tasks`.

    Attributes:
        features: outputs; with unlike tasks, the most that any of them needs.
        num_tasks: slots in the task stack, T.
        kernel_init: initialiser of each task's (d_in, features) kernel.

    Example:
        >>> head, x = TaskHead(3, num_tasks=2), jnp.ones((4, 6))
        >>> variables = head.init(jax.random.key(0), x, task_id=0)
        >>> head.apply(variables, x, jnp.array([0, 1, 1, 0])).shape
        (4, 3)
    """

    features: int
    num_tasks: int = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, inputs: Array, task_id: TaskId) -> Array:
        """Applies the task's own layer.

        Args:
            inputs: (batch, ..., d_in).
            task_id: an integer scalar, or one id per example (batch,).

        Returns:
            (batch, ..., features)

        Raises:
            TaskError: if a concrete id is not a slot.
            InputError: if there are ids, but not one per example.
        """
        d_in = inputs.shape[-1]

        def kernels() -> Array:
            keys = jax.random.split(self.make_rng("params"), self.num_tasks)
            return jax.vmap(lambda key: self.kernel_init(key, (d_in, self.features), jnp.float32))(keys)

        kernel = self.variable(TASKS, "kernel", kernels).value
        bias = self.variable(TASKS, "bias", lambda: jnp.zeros((self.num_tasks, self.features))).value
        ids = as_task_id(task_id, kernel.shape[0])
        own = gather({"kernel": kernel, "bias": bias}, ids)
        if ids.ndim:
            check_ids(ids.shape[0], inputs.shape[0])
        rows = inputs.reshape(inputs.shape[0], -1, d_in)
        own = {name: leaf.astype(inputs.dtype) for name, leaf in own.items()}
        per_example = jnp.broadcast_to(own["kernel"], (rows.shape[0], d_in, self.features))
        y = jnp.einsum("bnd,bdo->bno", rows, per_example)
        y = y + jnp.broadcast_to(own["bias"], (rows.shape[0], self.features))[:, None]
        return y.reshape(*inputs.shape[:-1], self.features)
