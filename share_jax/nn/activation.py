"""Activation space: a running model's layers are intercepted and the adapter's output is added to theirs."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from share_jax.core.protocol import Parameterization
from share_jax.errors import TargetError, line
from share_jax.nn.deltas import layer_delta
from share_jax.nn.targets import Target
from share_jax.nn.variables import SHARED, TASKS
from share_jax.typing import Array


def interceptor(method: Parameterization, targets: Mapping[tuple[str, ...], Target], head_layers: frozenset) -> Any:
    """For `nn.intercept_methods`: adds each target's update, and answers a mixed batch with each example's own head.

    The leaves are read from the module's own variables, never from a closure, so a trace that `nn.jit` keeps stays
    right: it is another trace when the collections are absent.

    Args:
      method: the parameterisation.
      targets: by the path of the layer that owns the kernel.
      head_layers: paths of the layers whose parameters each task owns.
    """

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        adapts = module.path in targets and context.method_name in ("__call__", "attend")
        if not adapts and module.path not in head_layers:
            return next_fun(*args, **kwargs)
        slot = dict(module.variables.get(TASKS, {}))
        if module.path in head_layers and slot:
            return _head(module, slot, *args, **kwargs)
        y = next_fun(*args, **kwargs)
        if not adapts:
            return y
        x = args[0] if args else next(iter(kwargs.values()))
        shared = dict(module.variables.get(SHARED, {}))
        return y + layer_delta(module, context.method_name, method, shared, slot, x, y.dtype)

    return intercept


def _head(module: nn.Module, slot: dict[str, Array], inputs: Array) -> Array:
    """A Dense layer with one kernel and bias per example: inputs (batch, ..., d_in) to (batch, ..., features)."""
    if not isinstance(module, nn.Dense):
        raise TargetError(
            line(
                f"head {'/'.join(module.path)} in a batch of different tasks",
                got=type(module).__name__,
                expected="Dense",
                mend="use one task per batch for this model",
            )
        )
    own = {**module.variables["params"], **slot}
    kernel, bias = own["kernel"], own.get("bias")
    dtype = module.dtype or jnp.result_type(inputs, kernel)
    rows = inputs.reshape(inputs.shape[0], -1, inputs.shape[-1]).astype(dtype)
    per_example = jnp.broadcast_to(kernel, (rows.shape[0], *kernel.shape[-2:])).astype(dtype)
    y = jnp.einsum("bnd,bdo->bno", rows, per_example)
    if bias is not None:
        y = y + jnp.broadcast_to(bias, (rows.shape[0], bias.shape[-1]))[:, None].astype(dtype)
    return y.reshape(*inputs.shape[:-1], module.features)
