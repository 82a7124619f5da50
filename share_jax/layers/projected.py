"""The first adapted layer of a model, its two products taken ahead of training.

Where A is frozen, x @ W and x @ A of the first adapted layer are as constant over a task as x is: what lies below it is
frozen too. Both can be computed once per example and kept (`train.prefix_cache.PrefixCache`) in place of x. A step
then takes neither product, forward or backward, and what is kept is d_out + q wide instead of d_in. This is what
sharing A allows: x @ A of a LoRA whose A is the task's own changes with every step.

    def prefix(variables, inputs):  # of a model that can be cut before the layer
        x, rest = model.apply({"params": variables["params"]}, **inputs, method="below")
        return {"x": adapted.project("block_4/down/kernel", variables, x), "rest": rest}

    cache = PrefixCache(prefix, {"params": params, "shared": bank.shared})

The model hands what was kept to the layer in place of x. It is a tree: a batch of it is
`jax.tree.map(lambda leaf: leaf[chosen], kept)`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from share_jax.annotations import Float
from share_jax.bank.slots import TaskSlots
from share_jax.errors import InputError, TargetError, message
from share_jax.layers.deltas import as_rows, cast, check_batch
from share_jax.layers.targets import Target
from share_jax.ops.products import down_product
from share_jax.parameterizations.base import Parameterization, own_down, specs
from share_jax.typing import Array, Leaves, Tree


class Projected(NamedTuple):
    """What an adapted Dense layer needs of its input.

    Attributes:
        plain: the layer's output without an update, (..., d_out).
        down: the input's few columns, (..., q).

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import share_jax
        >>> model, x = nn.Dense(3), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=share_jax.SharedA(rank=2))
        >>> shared = adapted.init(jax.random.key(1), base["params"], num_tasks=1)["shared"]
        >>> kept = adapted.project("kernel", {**base, "shared": shared}, x)
        >>> kept.plain.shape, kept.down.shape
        ((2, 3), (2, 2))
    """

    plain: Float[Array, "... d_out"]
    down: Float[Array, "... q"]


def project(
    method: Parameterization,
    target: Target,
    params: Tree,
    shared: Leaves,
    x: Float[Array, "... d_in"],
    plain: Callable[[], Array],
) -> Projected:
    """Both products of an adapted layer; in float32 where its kernel is, whatever it computes in.

    Args:
        method: the parameterisation.
        target: the layer's kernel, of a plain dense layer.
        params: the layer's own parameters.
        shared: the target's shared leaves.
        x: the layer's input, batch first.
        plain: the layer's output without an update.

    Raises:
        TargetError: if the layer is no Dense, or is stacked; or the first product takes leaves of the task.
        InputError: if there are no shared leaves, or the input is not of the layer's width.
    """
    if target.layer != "Dense" or target.stacked is not None:
        got, fix = f"{'a stacked ' if target.stacked else ''}{target.layer}", "keep the layer's input itself"
        raise TargetError(message(f"layer of {target.path}", got=got, expected="a Dense", fix=fix))
    wanted = specs(method, "shared").keys()
    if wanted - shared.keys():
        got, fix = f"a shared tree with {sorted(shared)} there", "pass the bank's shared tree, or that of Adapted.init"
        raise InputError(message(f"shared leaves of {target.path}", got=got, expected=sorted(wanted), fix=fix))
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim < 2 or x.shape[-1] != target.d_in:
        expected, fix = f"floats of shape (batch, ..., {target.d_in})", "pass the layer's input"
        raise InputError(message("x to project", got=f"{x.dtype} {x.shape}", expected=expected, fix=fix))
    if own := own_down(method):
        got, expected = f"{method!r}, whose {own[0]!r} is the task's own", "a first product of shared leaves alone"
        raise TargetError(message("method", got=got, expected=expected, fix="keep the layer's input itself"))
    dtype = jnp.result_type(x, *params.values())
    matrix = method.down(cast(shared, dtype), {})
    down = down_product(as_rows(x.astype(dtype), target.d_in), matrix)
    return Projected(plain(), down.reshape(*x.shape[:-1], matrix.shape[-1]))


def projected_output(
    method: Parameterization, shared: Leaves, slots: TaskSlots, x: Projected, dtype: DTypeLike | None
) -> Float[Array, "... d_out"]:
    """The layer's output with the update of a task, or of each example's own.

    Args:
        method: the parameterisation.
        shared: the target's shared leaves.
        slots: the target's task leaves.
        x: from `project`.
        dtype: the layer's compute dtype; that of `x` if None.

    Raises:
        InputError: if the ids of a mixed batch do not fit the layer's input.
    """
    x = Projected(*(part.astype(dtype or part.dtype) for part in x))
    slots = slots.at_hand()
    shared, slots = cast(shared, x.plain.dtype), replace(slots, leaves=cast(slots.leaves, x.plain.dtype))
    rows = as_rows(x.down, x.down.shape[-1])
    check_batch(slots, rows.shape[0])
    return x.plain + method.up(shared, slots.leaves, rows).reshape(x.plain.shape)
