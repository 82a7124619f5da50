"""An adapted layer's answer to a batch of different tasks through the Pallas kernel, where that is asked for."""

from typing import Any

from share_jax.layers.kernel_matrix import matrix_shape
from share_jax.layers.spec import Layer, LayerSpec
from share_jax.ops.mixed_batch import kernel_taken
from share_jax.parameterizations.base import Parameterization
from share_jax.typing import Array, Leaves


def mixed_output(
    layer: Layer, method: Parameterization, shared: Leaves, stack: Leaves, ids: Array, x: Array
) -> Array | None:
    """The layer's output and each example's own update, in one pass over both; None where the kernel is not taken.

    It is taken by a dense layer, and a general one that contracts the last axes of its input, with a method that is
    a `pair`, inside `share_jax.ops.mixed_batch.mixed_kernel`.

    Args:
        layer: the layer.
        method: the parameterisation.
        shared: the target's shared leaves.
        stack: its task leaves (T, ...).
        ids: int32 (batch,): which of them each example takes.
        x: the layer's input, batch first.
    """
    if layer.spec.kind not in ("dense", "general") or method.pair is None:
        return None
    kernel = layer.params["kernel"]
    axes = layer.spec.input_axes(kernel.ndim)
    if x.ndim <= axes or x.shape[0] != ids.shape[0] or not _last(layer.spec, x.ndim, axes):
        return None
    d_in, d_out = matrix_shape(kernel.shape, axes)
    dtype = layer.dtype(x)
    taken = kernel_taken(method.rank, d_in, d_out, dtype)
    if taken is None:
        return None
    from share_jax.ops.mixed_batch_pallas import mixed_update

    y, batch = layer.plain(), x.shape[0]
    rows = x.astype(dtype).reshape(batch, -1, d_in)
    down, up = ({**stack, **shared}[name] for name in method.pair)
    out: Any = mixed_update(y.reshape(batch, -1, d_out), rows, down, up, ids, method.scale, taken)
    return out.reshape(y.shape)


def _last(spec: LayerSpec, ndim: int, axes: int) -> bool:
    """Whether the layer contracts the last axes of its input."""
    return spec.kind == "dense" or sorted(axis % ndim for axis in spec.axis) == list(range(ndim - axes, ndim))
