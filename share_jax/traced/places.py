"""Where the examples of a batch lie in a value of a program, and marks of what layers get."""

from typing import Any, Literal, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

INPUT = "share_jax:input of a layer"
"""The name in a program of what a layer with a slot for each example gets."""


class Lies(NamedTuple):
    """Examples along an axis.

    Attributes:
        axis: of the value.
        rows: of each example, one after the other, along that axis.
        order: the batch's own, turned, or another.
    """

    axis: int
    rows: int = 1
    order: Literal["own", "turned", "moved"] = "own"


LOST = "lost"
"""Of a value that may hold examples anywhere."""

MIXED = "mixed"
"""Of a value that holds no examples, but depends on several of them, as their mean does."""

State = Lies | str | None
"""None: the value holds no examples and depends on none."""


def layer_input(x: Any) -> None:
    """Leaves a mark in the program that is being traced: a layer with a slot for each example gets this array."""
    checkpoint_name(x, INPUT)


def grown_axes(before: Any, after: Any) -> list[State]:
    """Where the batch lies in each leaf of a tree, by what it became with more examples.

    >>> grown_axes([jax.ShapeDtypeStruct((3, 4), float)], [jax.ShapeDtypeStruct((3, 5), float)])
    [Lies(axis=1, rows=1, order='own')]
    """
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    axes = [[at for at, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b] for x, y in pairs]
    return [Lies(own[0]) if own else None for own in axes]
