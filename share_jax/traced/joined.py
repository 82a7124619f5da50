"""Kernels that a program puts side by side in one array before a product, as a fused cell or fused attention does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.traced.kernel_view import KernelView
from share_jax.typing import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Joined:
    """A concatenation with a kernel among its parts.

    Attributes:
        value: as the program has it.
        parts: `KernelView` or arrays, from first to last.
        axis: along which they lie.
    """

    value: Array
    parts: tuple[Any, ...]
    axis: int = field(metadata={"static": True})

    @property
    def views(self) -> list[KernelView]:
        """Its kernels."""
        return [part for part in self.parts if isinstance(part, KernelView)]

    @property
    def all_kernels(self) -> bool:
        """Whether no part is another array."""
        return len(self.views) == len(self.parts)

    def mapped(self, value: Array, change: Callable[[Any], Any], axis: int | None = None) -> "Joined":
        """After an operation that goes through every part by itself."""
        parts = tuple(change(part) for part in self.parts)
        return Joined(value, parts, self.axis if axis is None else axis)


def joined(value: Array, inputs: Sequence[Any], axis: int) -> Joined | None:
    """A concatenation; None of one whose parts lie along another axis."""
    parts: list[Any] = []
    for each in inputs:
        if isinstance(each, Joined) and each.axis != axis:
            return None
        parts.extend(each.parts if isinstance(each, Joined) else [each])
    return Joined(value, tuple(parts), axis)


def kernels_in(value: Any) -> list[KernelView]:
    """The kernels of a value of a program; none of an array."""
    if isinstance(value, Joined):
        return value.views
    return [value] if isinstance(value, KernelView) else []


def with_value(value: Any, array: Any) -> Any:
    """The same kernels as another array, or that array itself where there are none."""
    return replace(value, value=array) if isinstance(value, (KernelView, Joined)) else array


class Lies(NamedTuple):
    """Where the axis along which kernels are joined lies in a product.

    Attributes:
        kept: whether the product keeps it.
        axis: of the output if it is kept, otherwise of the other operand.
    """

    kept: bool
    axis: int


def lies(whole: Joined, x: Any, kernel_first: bool, params: Mapping[str, Any]) -> Lies | None:
    """Where a `dot_general` has the axis of the parts; None if the layers of the product lie along it.

    Args:
        whole: the kernels.
        x: the other operand, or its shape.
        kernel_first: whether the kernels are the left operand.
        params: of the operation.
    """
    own, other = (0, 1) if kernel_first else (1, 0)
    contracted, layers = ([[int(at) for at in side] for side in axes] for axes in params["dimension_numbers"])
    if whole.axis in layers[own]:
        return None
    if whole.axis in contracted[own]:
        return Lies(False, contracted[other][contracted[own].index(whole.axis)])
    free = [at for at in range(whole.value.ndim) if at not in contracted[own] + layers[own]]
    ahead = 0 if kernel_first else x.ndim - len(contracted[other]) - len(layers[other])
    return Lies(True, len(layers[own]) + ahead + free.index(whole.axis))


def product_of_parts(whole: Joined, x: Array, place: Lies, product: Callable[[Any, Array], Array]) -> Array:
    """A product with joined kernels, part by part.

    Parts along a kept axis make parts of the output. Parts along a contracted one take each their share of x, and what
    comes of them is added.

    Args:
        whole: the kernels.
        x: the other operand.
        place: from `lies`.
        product: (part, x) to the output of the operation.
    """
    if place.kept:
        return jnp.concatenate([product(part, x) for part in whole.parts], place.axis)
    sizes = [jnp.shape(plain(part))[whole.axis] for part in whole.parts]
    shares = jnp.split(x, np.cumsum(sizes)[:-1], place.axis)
    return reduce(jnp.add, map(product, whole.parts, shares))


def plain(value: Any) -> Any:
    """The array that the program has."""
    return value.value if isinstance(value, (KernelView, Joined)) else value
