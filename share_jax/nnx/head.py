"""A head per task in an NNX module of one's own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from share_jax.bank.slots import as_task_id, gather
from share_jax.layers.deltas import check_ids
from share_jax.nnx.variables import TaskVariable
from share_jax.typing import Array, TaskId


class TaskHead(nnx.Module):
    """A Linear layer of which each task owns kernel and bias; both are `TaskVariable`s.

    Example:
        >>> head = TaskHead(6, 3, num_tasks=2, rngs=nnx.Rngs(0))
        >>> head(jnp.ones((4, 6)), jnp.array([0, 1, 1, 0])).shape
        (4, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        num_tasks: int = 1,
        kernel_init: Callable[..., Array] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Creates kernels (T, in_features, out_features), each from a key of its own, and biases of zero."""
        init = kernel_init or nnx.initializers.normal(0.02)
        keys = jax.random.split(rngs.params(), num_tasks)
        self.kernel = TaskVariable(jax.vmap(lambda key: init(key, (in_features, out_features), jnp.float32))(keys))
        self.bias = TaskVariable(jnp.zeros((num_tasks, out_features)))

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:
        """Applies the task's own layer.

        Args:
            inputs: (batch, ..., in_features)
            task_id: an integer scalar, or one id per example (batch,).

        Raises:
            TaskError: if a concrete id is not a slot.
            InputError: if there are ids, but not one per example.
        """
        ids = as_task_id(task_id, self.kernel.shape[0])
        own = gather({"kernel": self.kernel[...], "bias": self.bias[...]}, ids)
        kernel, bias = own["kernel"].astype(inputs.dtype), own["bias"].astype(inputs.dtype)
        if not ids.ndim:
            return inputs @ kernel + jnp.broadcast_to(bias, (*inputs.shape[:-1], bias.shape[-1]))
        check_ids(ids.shape[0], inputs.shape[0])
        return jax.vmap(lambda x, k, b: x @ k + jnp.broadcast_to(b, (*x.shape[:-1], b.shape[-1])))(inputs, kernel, bias)
