"""A Pallas kernel for a batch of different tasks: y[b] + scale (x[b] @ A) @ B[ids[b]], in one pass over x and y.

The plain path gathers one (r, d_out) factor per example, multiplies, writes the update and adds it to y. The kernel
fetches B[ids[b]] from the stack of all tasks by its block index, and reads x, reads y and writes the sum once. With A
of (T, d_in, r) it is the same for separate LoRA, whose A belongs to the task too.

It is a kernel of a TPU: the ids are prefetched scalars that choose the blocks (`PrefetchScalarGridSpec`). It has not
been timed on one, so nothing takes it unasked: see `share_jax.ops.mixed_batch`. It is held equal to the plain path in
Pallas' interpreter, and lowers for a TPU without a device.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from share_jax.annotations import Float, Int
from share_jax.ops.mixed_batch import Kernel
from share_jax.ops.products import down_product, up_product
from share_jax.typing import Array

TPU_BYTES = 2**20
"""Most that one block of x, or of y, takes of a TPU core's fast memory; there are two of each, and of the output."""


def plain_mixed(
    y: Float[Array, "batch n d_out"],
    x: Float[Array, "batch n d_in"],
    down: Float[Array, "*tasks d_in r"],
    up: Float[Array, "tasks r d_out"],
    ids: Int[Array, " batch"],
    scale: float,
) -> Float[Array, "batch n d_out"]:
    """The same by gathers and the products of `share_jax.ops.products`, as adapted layers compute it."""

    def own(stack: Array) -> Array:
        return stack.at[ids].get(mode="fill", wrap_negative_indices=False).astype(x.dtype)

    a = own(down) if down.ndim == 3 else down.astype(x.dtype)
    return y + up_product(down_product(x, a), scale * own(up)).astype(y.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def mixed_update(
    y: Float[Array, "batch n d_out"],
    x: Float[Array, "batch n d_in"],
    down: Float[Array, "*tasks d_in r"],
    up: Float[Array, "tasks r d_out"],
    ids: Int[Array, " batch"],
    scale: float,
    kernel: Kernel,
) -> Float[Array, "batch n d_out"]:
    """y[b] + scale (x[b] @ down) @ up[ids[b]] through the kernel; its gradients are those of `plain_mixed`.

    Args:
        y: the layer's own output.
        x: its input, in the type that is computed in.
        down: A (d_in, r), or one per task (T, d_in, r); in any type.
        up: B of all tasks; in any type.
        ids: one task per example. An id out of range gives NaN, as the gather of the plain path does.
        scale: alpha / r.
        kernel: whether it is interpreted.

    Returns:
        The sum, in y's type; products accumulate in float32.
    """
    return _tpu(y, x, down if down.ndim == 3 else down[None], up, ids.astype(jnp.int32), scale, kernel.interpret)


def _forward(y: Array, x: Array, down: Array, up: Array, ids: Array, scale: float, kernel: Kernel) -> tuple:
    return mixed_update(y, x, down, up, ids, scale, kernel), (y, x, down, up, ids)


def _backward(scale: float, kernel: Kernel, kept: tuple, slope: Array) -> tuple:
    *moving, ids = kept
    _, back = jax.vjp(lambda y, x, down, up: plain_mixed(y, x, down, up, ids, scale), *moving)
    return (*back(slope), None)


mixed_update.defvjp(_forward, _backward)


def _poison(task: Any, tasks: int) -> Any:
    """0 for a task that there is, NaN for one that there is not; a root, since a choice of scalars does not lower."""
    return jnp.sqrt(((task >= 0) & (task < tasks)).astype(jnp.float32) - 1)


def _at_most(size: int, most: int, unit: int) -> int:
    """The whole axis, or the largest multiple of the unit that is not above `most`."""
    return size if size <= most else max(unit, most // unit * unit)


def _tpu(y: Array, x: Array, down: Array, up: Array, ids: Array, scale: float, interpret: bool) -> Array:
    (batch, n, d_out), d_in, (tasks, rank, _) = y.shape, x.shape[-1], up.shape
    columns = _at_most(d_out, 2048, 128)
    rows = _at_most(n, min(512, TPU_BYTES // (4 * max(d_in, columns))), 16)  # 16 rows of bfloat16 are one tile

    def body(ids_ref: Any, y_ref: Any, x_ref: Any, down_ref: Any, up_ref: Any, out_ref: Any, h_ref: Any) -> None:
        task = ids_ref[pl.program_id(0)]

        @pl.when(pl.program_id(2) == 0)
        def _() -> None:
            a = down_ref[0].astype(x_ref.dtype)
            h_ref[...] = scale * jnp.dot(x_ref[0], a, preferred_element_type=jnp.float32)

        b = up_ref[0].astype(x_ref.dtype)
        delta = jnp.dot(h_ref[...].astype(x_ref.dtype), b, preferred_element_type=jnp.float32)
        out_ref[0] = (y_ref[0].astype(jnp.float32) + delta + _poison(task, tasks)).astype(out_ref.dtype)

    def own(example: Any, ids_ref: Any) -> Any:
        return jnp.clip(ids_ref[example], 0, tasks - 1)

    per_task = down.shape[0] > 1
    over = lambda b, i, j, ids_ref: (b, i, j)  # noqa: E731
    return pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct(y.shape, y.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, pl.cdiv(n, rows), pl.cdiv(d_out, columns)),
            in_specs=[
                pl.BlockSpec((1, rows, columns), over),
                pl.BlockSpec((1, rows, d_in), lambda b, i, j, ids_ref: (b, i, 0)),
                pl.BlockSpec((1, d_in, rank), lambda b, i, j, ids_ref: (own(b, ids_ref) if per_task else 0, 0, 0)),
                pl.BlockSpec((1, rank, columns), lambda b, i, j, ids_ref: (own(b, ids_ref), 0, j)),
            ],
            out_specs=pl.BlockSpec((1, rows, columns), over),
            scratch_shapes=[pltpu.VMEM((rows, rank), jnp.float32)],
        ),
        input_output_aliases={1: 0},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="mixed_update",
    )(ids, y, x, down, up)
