"""Activation space: a running model's layers are intercepted and the adapter's output is added to theirs."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from share_jax.bank.slots import TaskSlots
from share_jax.errors import ShareError, TargetError, message
from share_jax.layers.adapted_layer import adapted_output
from share_jax.layers.deltas import UnlikeBatchError, check_batch
from share_jax.layers.projected import Projected, projected_output
from share_jax.layers.targets import Target
from share_jax.linen.layer_spec import PLAIN, layer_of, layer_type
from share_jax.linen.variables import SHARED, TASKS
from share_jax.parameterizations.base import Parameterization, specs
from share_jax.traced.places import layer_input
from share_jax.trees import at, flat, keys_of, nested, path_of
from share_jax.typing import Array

SLOT, HEAD = "task:slot", "task:head"
"""What an adapted layer finds in its collection `tasks`: the `TaskSlots` of its kernel, and of its own parameters."""


def layer_slots(
    slots: TaskSlots,
    method: Parameterization,
    targets: Sequence[Target],
    heads: Collection[str],
    elsewhere: Sequence[Target] = (),
) -> dict[str, Any]:
    """The collection `tasks`, in which each layer finds its own `TaskSlots`; `interceptor` reads it.

    Args:
        slots: the model's.
        method: the parameterisation.
        targets: the adapted kernels.
        heads: paths of the parameters that each task owns whole; with one slot for the batch they are in `params`.
        elsewhere: targets whose update no layer adds.
    """
    of_heads, slots = slots.heads or slots, replace(slots, heads=None)
    own, names = flat(slots.leaves), specs(method, "task")
    made: dict[str, Any] = {}
    taken = {*heads, *(path_of((*target.leaves_path, name)) for target in elsewhere for name in names)}
    for target in targets:
        there = at(slots.leaves, target.leaves_path)
        leaves = {name: there[name] for name in names if name in there}
        taken |= {path_of((*target.leaves_path, name)) for name in leaves}
        layer = replace(slots, leaves=leaves, method=method)
        if target.stacked is not None and slots.batched:
            # nn.scan and nn.vmap take the axis they stack from the front: of the chosen slots, not of the whole stack.
            layer = layer.at_hand()
            layer = replace(layer, leaves={name: jnp.moveaxis(leaf, 1, 0) for name, leaf in layer.leaves.items()})
        if leaves:
            made[path_of((*target.module_path, SLOT))] = layer
    rest = {path: leaf for path, leaf in own.items() if path not in taken}
    made |= flat(replace(slots, leaves=nested(rest)).at_hand().leaves) if rest else {}
    if of_heads.batched:
        whole = flat(of_heads.leaves)
        by_layer: dict[tuple[str, ...], dict[str, Array]] = {}
        for path in heads:
            *place, name = keys_of(path)
            by_layer.setdefault(tuple(place), {})[name] = whole[path]
        made |= {path_of((*place, HEAD)): replace(of_heads, leaves=leaves) for place, leaves in by_layer.items()}
    return nested(made)


def interceptor(targets: Collection[tuple[str, ...]], head_layers: Collection[tuple[str, ...]]) -> Any:
    """For `nn.intercept_methods`: adds each target's update, and gives each example of a mixed batch its own head.

    The slots are read from the module's own variables, never from a closure, so a trace that `nn.jit` keeps stays
    right: it is another trace when the collections are absent, or when the method's static numbers differ.

    Args:
        targets: paths of the layers that own the adapted kernels.
        head_layers: paths of the layers whose parameters each example's task owns.
    """

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if module.scope is None or isinstance(module, PLAIN):
            return next_fun(*args, **kwargs)
        adapts = module.path in targets and context.method_name in ("__call__", "attend")
        has_heads = module.path in head_layers and context.method_name != "setup"
        if not adapts and not has_heads:
            return next_fun(*args, **kwargs)
        if next_fun is not context.orig_method:
            raise _intercepted(module)
        own = module.variables.get(TASKS, {})
        if (adapts and SLOT not in own) or (has_heads and HEAD not in own):
            raise _not_carried(module, UnlikeBatchError if has_heads else TargetError)
        if has_heads and (layer_type(module) is not nn.Dense or context.method_name != "__call__"):
            raise _no_dense(module)
        run = partial(_head, module, own[HEAD]) if has_heads else next_fun
        x = args[0] if args else next(iter(kwargs.values()))
        if has_heads or own[SLOT].batched:
            jax.tree.map(layer_input, x)
        if not adapts:
            return run(*args, **kwargs)
        slots, shared = own[SLOT], dict(module.variables.get(SHARED, {}))
        if isinstance(x, Projected):
            return projected_output(slots.method, shared, slots, x, module.dtype)
        layer = layer_of(module, partial(run, *args, **kwargs))
        return adapted_output(layer, context.method_name, slots.method, shared, slots, x)

    return intercept


def _not_carried(module: nn.Module, kind: type[ShareError]) -> ShareError:
    return kind(
        message(
            f"layer {'/'.join(module.path)}",
            got="a call without its task's leaves",
            expected=f"the collections '{SHARED}' and '{TASKS}' at the layer",
            fix="name them wherever a lifted transform around it names 'params', or use space='parameter'",
        )
    )


def _intercepted(module: Any) -> TargetError:
    return TargetError(
        message(
            f"layer {'/'.join(module.path)}",
            got="a call that the model itself intercepts",
            expected="a layer whose output goes on as it is",
            fix="leave this layer out of the targets and heads, or use space='parameter'",
        )
    )


def _no_dense(module: Any) -> UnlikeBatchError:
    return UnlikeBatchError(
        message(
            f"head {'/'.join(module.path)} in a batch of different tasks",
            got=type(module).__name__,
            expected="a plain Dense",
            fix="use one task per batch for this model",
        )
    )


def _head(module: Any, slots: TaskSlots, inputs: Array) -> Array:
    """A Dense layer with one kernel and bias per example: inputs (batch, ..., d_in) to (batch, ..., features)."""
    slots = slots.at_hand()
    check_batch(slots, inputs.shape[0])
    own = {**module.variables["params"], **slots.leaves}
    kernel, bias = own["kernel"], own.get("bias")
    dtype = module.dtype or jnp.result_type(inputs, kernel)
    rows = inputs.reshape(inputs.shape[0], -1, inputs.shape[-1]).astype(dtype)
    per_example = jnp.broadcast_to(kernel, (rows.shape[0], *kernel.shape[-2:])).astype(dtype)
    y = jnp.einsum("bnd,bdo->bno", rows, per_example)
    if bias is not None:
        y = y + jnp.broadcast_to(bias, (rows.shape[0], bias.shape[-1]))[:, None].astype(dtype)
    return y.reshape(*inputs.shape[:-1], module.features)
