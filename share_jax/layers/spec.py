"""A linear layer as plain data and functions: what a module system hands over, and all that an adapter needs of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from share_jax.typing import Array


@dataclass(frozen=True)
class LayerSpec:
    """How a layer sees its kernel.

    Attributes:
        kind: "dense", "general" (any axes contracted), "conv", or "embed" (a table, looked up or transposed).
        features: the axes of the layer's output that the kernel makes, (features,) but for a general layer.
        axis: of the input, contracted by a general layer; may be negative.
        window: of a convolution.
        groups: of a convolution's features.
        rows: of a table.
        dtype: in which the layer computes; that of its input and parameters together if None.
    """

    kind: Literal["dense", "general", "conv", "embed"]
    features: tuple[int, ...]
    axis: tuple[int, ...] = ()
    window: tuple[int, ...] = ()
    groups: int = 1
    rows: int = 0
    dtype: Any = None

    def input_axes(self, ndim: int) -> int:
        """How many leading axes of a kernel of `ndim` axes are inputs.

        >>> LayerSpec("general", (12, 32), axis=(-1,)).input_axes(3), LayerSpec("conv", (8,)).input_axes(4)
        (1, 3)
        """
        return len(self.axis) if self.kind == "general" else ndim - 1


class Layer(NamedTuple):
    """A layer while its model runs.

    Attributes:
        spec: how it sees its kernel.
        params: its parameters.
        plain: its output without an update.
        on: (parameters, input) to the output of the same layer on other parameters, again without an update.
        convolve: (kernel, input) to a convolution of the same strides, padding, dilation and groups, without bias.
    """

    spec: LayerSpec
    params: dict[str, Array]
    plain: Callable[[], Array]
    on: Callable[[dict[str, Array], Array], Array]
    convolve: Callable[[Array, Array], Array]

    def dtype(self, x: Array) -> Any:
        """Of the layer's output."""
        return self.spec.dtype or jnp.result_type(x, *self.params.values())
