"""Creating and reading an adapter's variables inside a module of one's own."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from share_jax.bank.slots import as_task_id, gather
from share_jax.errors import InputError, message
from share_jax.layers.adapted_layer import adapted_output
from share_jax.layers.kernel_matrix import input_axes, matrix_shape
from share_jax.layers.mixed_layer import mixed_output
from share_jax.parameterizations.base import Parameterization, check_method
from share_jax.typing import Array, Leaves, PRNGKey

SHARED = "shared"
TASKS = "tasks"

TaskId = int | np.integer | Sequence[int] | np.ndarray | jax.Array
"""A whole number, or one per example; concrete or traced."""


def init_stack(method: Parameterization, key: PRNGKey, d_in: int, d_out: int, num_tasks: int) -> Leaves:
    """Fresh task leaves (T, ...), each task from a key of its own."""
    keys = jax.random.split(key, num_tasks)
    return jax.vmap(lambda one: method.init_task(one, d_in, d_out))(keys)


def declare(module: nn.Module, method: Parameterization, kernel: Array, num_tasks: int) -> None:
    """Creates the variables of `module`'s adapter while the module is being initialised; nothing otherwise.

    Raises:
      InputError: if `num_tasks` is below 1, or the method is no parameterisation.
    """
    if not module.is_initializing():
        return
    check_method(method, "choose one of share_jax's, or write the functions of core/protocol.py")
    if num_tasks < 1:
        raise InputError(message("num_tasks", got=num_tasks, expected="at least 1", fix="pass the number of slots"))
    d_in, d_out = matrix_shape(kernel.shape, input_axes(module, kernel.ndim))
    key_shared, key_tasks = jax.random.split(module.make_rng("params"))
    for name, leaf in method.init_shared(key_shared, d_in, d_out).items():
        module.variable(SHARED, name, lambda leaf=leaf: leaf)
    for name, leaf in init_stack(method, key_tasks, d_in, d_out, num_tasks).items():
        module.variable(TASKS, name, lambda leaf=leaf: leaf)


def adapted(
    module: nn.Module,
    method: Parameterization,
    method_name: str,
    x: Array,
    task_id: TaskId,
    plain: Callable[[], Array],
) -> Array:
    """The layer's output with the adapter in `module`'s own variables.

    Args:
      module: the layer.
      method: the parameterisation.
      method_name: "__call__", or "attend" of an Embed.
      x: the layer's input.
      task_id: an integer scalar, or one id per example.
      plain: runs the layer as it is.

    Raises:
      InputError: if the variables were not passed to `apply`.
      TaskError: if a concrete task id is not a slot.
    """
    own = module.variables
    tasks = dict(own.get(TASKS, {}))
    if not tasks:
        raise InputError(
            message(
                f"variables of {'/'.join(module.path) or type(module).__name__}",
                got=f"collections {sorted(own)}",
                expected=f"'{SHARED}' and '{TASKS}' beside 'params'",
                fix="pass everything that init returned to apply",
            )
        )
    num_tasks = next(iter(tasks.values())).shape[0]
    ids, shared = as_task_id(task_id, num_tasks), dict(own.get(SHARED, {}))
    if ids.ndim and (y := mixed_output(module, method, shared, tasks, ids, x, plain)) is not None:
        return y
    return adapted_output(module, method_name, method, shared, gather(tasks, ids), x, plain)
