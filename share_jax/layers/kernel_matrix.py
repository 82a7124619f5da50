"""How a layer's kernel is seen as a matrix: which leading axes are inputs, and what stands in the way."""

import math

import flax.linen as nn

from share_jax.errors import TargetError, message

KERNEL_LEAF = {nn.Dense: "kernel", nn.DenseGeneral: "kernel", nn.Conv: "kernel", nn.Embed: "embedding"}
"""The layers that can be adapted in activation space, and the name of their kernel."""


def layer_type(module: nn.Module) -> type[nn.Module] | None:
    """Which of Flax's linear layers computes this module's output; None if it has a computation of its own."""
    for layer in KERNEL_LEAF:
        if isinstance(module, layer) and type(module).__call__ is layer.__call__:
            return layer
    return None


def input_axes(module: nn.Module, ndim: int) -> int:
    """How many leading axes of a kernel of `ndim` axes are inputs; all but the last unless the layer says otherwise."""
    if isinstance(module, nn.DenseGeneral):
        return len((module.axis,) if isinstance(module.axis, int) else tuple(module.axis))
    return ndim - 1


def obstacle(module: nn.Module) -> str | None:
    """What about this layer the low-rank update cannot follow in activation space; None if nothing."""
    if isinstance(module, nn.DenseGeneral) and module.batch_dims not in ((), []):
        return f"DenseGeneral with batch_dims={module.batch_dims}"
    if isinstance(module, nn.Conv) and module.mask is not None:
        return "Conv with a mask"
    return None


def refuse_obstacle(module: nn.Module) -> None:
    """Raises where `obstacle` finds something.

    Raises:
      TargetError: naming the layer and what it has.
    """
    found = obstacle(module)
    if found is not None:
        raise TargetError(
            message(
                f"layer {'/'.join(module.path)}",
                got=found,
                expected="a kernel that is one matrix",
                fix="leave this layer out of the targets, or use space='parameter' on the unmodified model",
            )
        )


def matrix_shape(shape: tuple[int, ...], in_axes: int) -> tuple[int, int]:
    """(d_in, d_out) of a kernel.

    >>> matrix_shape((384, 12, 32), 1), matrix_shape((12, 32, 384), 2), matrix_shape((3, 3, 16, 32), 3)
    ((384, 384), (384, 384), (144, 32))
    """
    return math.prod(shape[:in_axes]), math.prod(shape[in_axes:])
