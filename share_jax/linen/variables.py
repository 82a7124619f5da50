"""Creating and reading an adapter's variables inside a module of one's own."""

from collections.abc import Callable

import flax.linen as nn
import jax

from share_jax.adapted import SHARED, TASKS
from share_jax.bank.slots import slots_of
from share_jax.errors import InputError, message
from share_jax.layers.adapted_layer import adapted_output
from share_jax.layers.fresh_trees import init_stack
from share_jax.layers.kernel_matrix import matrix_shape
from share_jax.linen.layer_spec import layer_of, spec_of
from share_jax.parameterizations.base import Parameterization, check_method
from share_jax.typing import Array, TaskId


def declare(module: nn.Module, method: Parameterization, kernel: Array, num_tasks: int) -> None:
    """Creates the variables of `module`'s adapter while the module is being initialised; nothing otherwise.

    Raises:
        InputError: if `num_tasks` is below 1, or the method is no parameterisation.
    """
    if not module.is_initializing():
        return
    check_method(method, "choose one of share_jax's, or write the functions of parameterizations/base.py")
    if num_tasks < 1:
        raise InputError(message("num_tasks", got=num_tasks, expected="at least 1", fix="pass the number of slots"))
    spec = spec_of(module)
    axes = kernel.ndim - 1 if spec is None else spec.input_axes(kernel.ndim)
    d_in, d_out = matrix_shape(kernel.shape, axes)
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
    slots = slots_of(tasks, task_id)
    return adapted_output(layer_of(module, plain), method_name, method, dict(own.get(SHARED, {})), slots, x)
