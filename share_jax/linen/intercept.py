"""Activation space: a running model's layers are intercepted and the adapter's output is added to theirs."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from share_jax.errors import TargetError, message
from share_jax.layers.adapted_layer import PLAIN, adapted_output
from share_jax.layers.deltas import check_ids
from share_jax.layers.kernel_matrix import layer_type
from share_jax.layers.mixed_layer import mixed_output
from share_jax.layers.projected import Projected, projected_output
from share_jax.layers.targets import Target
from share_jax.linen.variables import SHARED, TASKS
from share_jax.parameterizations.base import Parameterization
from share_jax.typing import Array


def static_mark(method: Parameterization) -> str:
    """A leaf's name that spells the method's static numbers.

    `nn.jit` keeps a trace for one structure of variables. Two methods of equal shapes, such as SharedA with another
    alpha, must not share one: a leaf of this name beside a target's own makes the structures differ.
    """
    return f"static:{method!r}"


def interceptor(method: Parameterization, targets: Mapping[tuple[str, ...], Target], head_layers: frozenset) -> Any:
    """For `nn.intercept_methods`: adds each target's update, and answers a mixed batch with each example's own head.

    The leaves are read from the module's own variables, never from a closure, so a trace that `nn.jit` keeps stays
    right: it is another trace when the collections are absent, or when the method's static numbers differ.

    Args:
      method: the parameterisation.
      targets: by the path of the layer that owns the kernel.
      head_layers: paths of the layers whose parameters each task owns.
    """
    mark = static_mark(method)

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if module.scope is None or isinstance(module, PLAIN):
            return next_fun(*args, **kwargs)
        adapts = module.path in targets and context.method_name in ("__call__", "attend")
        answers = module.path in head_layers
        if not adapts and not answers:
            return next_fun(*args, **kwargs)
        own = dict(module.variables.get(TASKS, {}))
        slot = {name: leaf for name, leaf in own.items() if name not in module.variables["params"] and name != mark}
        head = {name: leaf for name, leaf in own.items() if name in module.variables["params"]}
        if (adapts and not slot) or (answers and not head):
            raise _not_carried(module)

        def plain() -> Any:
            return _head(module, head, *args, **kwargs) if answers else next_fun(*args, **kwargs)

        if not adapts:
            return plain()
        x = args[0] if args else next(iter(kwargs.values()))
        shared = dict(module.variables.get(SHARED, {}))
        if isinstance(x, Projected):
            return projected_output(method, shared, slot, x, module.dtype)
        examples = {leaf.shape[0] for leaf in slot.values() if leaf.ndim == 3}
        if len(examples) == 1 and context.method_name == "__call__":
            y = mixed_output(module, method, shared, slot, jnp.arange(examples.pop()), x, plain)
            if y is not None:
                return y
        return adapted_output(module, context.method_name, method, shared, slot, x, plain)

    return intercept


def _not_carried(module: nn.Module) -> TargetError:
    return TargetError(
        message(
            f"layer {'/'.join(module.path)}",
            got="a call without its task's leaves",
            expected=f"the collections '{SHARED}' and '{TASKS}' at the layer",
            fix="name them wherever a lifted transform around it names 'params', or use space='parameter'",
        )
    )


def _head(module: Any, slot: dict[str, Array], inputs: Array) -> Array:
    """A Dense layer with one kernel and bias per example: inputs (batch, ..., d_in) to (batch, ..., features)."""
    if layer_type(module) is not nn.Dense:
        raise TargetError(
            message(
                f"head {'/'.join(module.path)} in a batch of different tasks",
                got=type(module).__name__,
                expected="a plain Dense",
                fix="use one task per batch for this model",
            )
        )
    for leaf in slot.values():
        check_ids(leaf.shape[0], inputs.shape[0])
    own = {**module.variables["params"], **slot}
    kernel, bias = own["kernel"], own.get("bias")
    dtype = module.dtype or jnp.result_type(inputs, kernel)
    rows = inputs.reshape(inputs.shape[0], -1, inputs.shape[-1]).astype(dtype)
    per_example = jnp.broadcast_to(kernel, (rows.shape[0], *kernel.shape[-2:])).astype(dtype)
    y = jnp.einsum("bnd,bdo->bno", rows, per_example)
    if bias is not None:
        y = y + jnp.broadcast_to(bias, (rows.shape[0], bias.shape[-1]))[:, None].astype(dtype)
    return y.reshape(*inputs.shape[:-1], module.features)
