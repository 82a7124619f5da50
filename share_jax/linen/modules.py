"""Flax's linear layers with a shared low-rank adapter: the same `params`, and a required `task_id`.

Each module is the Flax layer of the same name plus the two fields of `TaskLayer`, so a pretrained `params` tree loads
as it is. The collection `shared` holds what all tasks share, the collection `tasks` what each task owns, stacked
(T, ...).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn

from share_jax.linen.layer_spec import refuse_obstacle
from share_jax.linen.variables import adapted, declare
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.shared_a import SharedA
from share_jax.typing import Array, TaskId


class TaskLayer(nn.Module):
    """What every one of these layers has beside its Flax layer's own fields.

    Attributes:
        num_tasks: slots in the task stack, T.
        method: the parameterisation; `SharedA(rank=4, alpha=8)` by default.
    """

    num_tasks: int = 1
    method: Parameterization = SharedA()
    __no_type_check__ = True  # Flax's own fields have annotations that cannot be checked at run time


def _linear(module: TaskLayer, layer: Callable[[Array], Array], inputs: Array, task_id: TaskId) -> Array:
    """The output of a layer that owns a kernel; the layer itself creates the kernel, then the adapter its variables."""
    plain = partial(layer, inputs)
    if module.is_initializing():
        y = plain()
        declare(module, module.method, module.variables["params"]["kernel"], module.num_tasks)
        plain = lambda: y  # noqa: E731
    return adapted(module, module.method, "__call__", inputs, task_id, plain)


class SharedLoRADense(TaskLayer, nn.Dense):
    """`nn.Dense` plus scale * x @ A @ B[task_id].

    `num_tasks` and `method` are those of `TaskLayer`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer, x = SharedLoRADense(3, num_tasks=3), jnp.ones((2, 4))
        >>> variables = layer.init(jax.random.key(0), x, task_id=0)
        >>> layer.apply(variables, x, jnp.array([2, 0])).shape
        (2, 3)
        >>> {name: jax.tree.map(jnp.shape, tree) for name, tree in variables.items() if name != "params"}
        {'shared': {'lora_a': (4, 4)}, 'tasks': {'lora_b': (3, 4, 3)}}
    """

    @nn.compact
    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Applies the layer and the task's update.

        Args:
            inputs: (..., d_in), batch first.
            task_id: an integer scalar, or one id per example (batch,).

        Returns:
            (..., features)

        Raises:
            TaskError: if a concrete id is not a slot.
        """
        return _linear(self, super().__call__, inputs, task_id)


class SharedLoRADenseGeneral(TaskLayer, nn.DenseGeneral):
    """`nn.DenseGeneral`, as in attention's 3-axis kernels, plus a low-rank update of its flattened kernel.

    `num_tasks` and `method` are those of `TaskLayer`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer, x = SharedLoRADenseGeneral((2, 3), num_tasks=3), jnp.ones((2, 4))  # two heads of width 3
        >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x, jnp.array([2, 0]))
        >>> y.shape, variables["tasks"]["lora_b"].shape
        ((2, 2, 3), (3, 4, 6))
    """

    @nn.compact
    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Applies the layer and the task's update.

        Args:
            inputs: batch first; the axes named by `axis` are contracted.
            task_id: an integer scalar, or one id per example (batch,).

        Returns:
            The axes that are left, then `features`.

        Raises:
            TargetError: if the layer has `batch_dims`.
            TaskError: if a concrete id is not a slot.
        """
        refuse_obstacle(self)
        return _linear(self, super().__call__, inputs, task_id)


class SharedLoRAConv(TaskLayer, nn.Conv):
    """`nn.Conv`, groups included, plus a convolution to r channels followed by a product to the features.

    `num_tasks` and `method` are those of `TaskLayer`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer, x = SharedLoRAConv(4, kernel_size=(3, 3), num_tasks=3), jnp.ones((2, 5, 5, 3))
        >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x, jnp.array([2, 0]))
        >>> y.shape, variables["shared"]["lora_a"].shape
        ((2, 5, 5, 4), (27, 4))
    """

    @nn.compact
    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Applies the layer and the task's update.

        Args:
            inputs: (batch, *spatial, channels).
            task_id: an integer scalar, or one id per example (batch,).

        Returns:
            (batch, *spatial, features)

        Raises:
            TargetError: if the layer has a mask.
            TaskError: if a concrete id is not a slot.
        """
        refuse_obstacle(self)
        return _linear(self, super().__call__, inputs, task_id)


class SharedLoRAEmbed(TaskLayer, nn.Embed):
    """`nn.Embed` plus A[ids] @ B[task_id]; the tied output layer `attend` takes the transposed pair.

    `num_tasks` and `method` are those of `TaskLayer`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer, tokens = SharedLoRAEmbed(10, 4, num_tasks=3), jnp.array([[1, 2, 3], [4, 5, 6]])
        >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), tokens, jnp.array([2, 0]))
        >>> y.shape, variables["shared"]["lora_a"].shape
        ((2, 3, 4), (10, 4))
    """

    def setup(self) -> None:
        super().setup()
        declare(self, self.method, self.embedding, self.num_tasks)

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Looks the tokens up, with the task's update.

        Args:
            inputs: integer ids (...), batch first.
            task_id: an integer scalar, or one id per example (batch,).

        Returns:
            (..., features)

        Raises:
            TaskError: if a concrete id is not a slot.
        """
        return adapted(self, self.method, "__call__", inputs, task_id, partial(super().__call__, inputs))

    def attend(self, query: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """query @ embedding.T with the task's update.

        Args:
            query: (..., features), batch first.
            task_id: an integer scalar, or one id per example (batch,).

        Returns:
            (..., num_embeddings)

        Raises:
            TaskError: if a concrete id is not a slot.
        """
        return adapted(self, self.method, "attend", query, task_id, partial(super().attend, query))
