"""How an operation of a traced program uses a kernel: the record that every kind of operation fills in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from share_jax.parameterizations.base import Parameterization
from share_jax.typing import Array


@dataclass(frozen=True)
class Use:
    """Which axes of a kernel an operation contracts, and which it keeps.

    Attributes:
        kind: "product", "convolution", "lookup" of rows, "mark" of a module, or "other" for what is none of these.
        inputs: axes that are contracted, or looked up, in the order in which they make d_in.
        outputs: axes that are kept, in the order in which they make d_out.
        slices: axes along which loops or indices take one layer each, the outermost first.
        batch: axes that run along an axis of the other operand, as those of layers that are vmapped.
        note: the mark's text; what an operation is that no layer of Flax does, or that takes a part of an axis.
        custom: the primitive around it whose derivatives are its own; empty if there is none.
    """

    kind: Literal["product", "convolution", "lookup", "mark", "other"]
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    slices: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    note: str = ""
    custom: str = ""

    @property
    def stacked(self) -> tuple[int, ...]:
        """The axes along which layers stand, the outermost first."""
        return self.slices + self.batch


@dataclass(frozen=True)
class Sides:
    """The two sides of a kernel as an operation finds them in an adapter.

    Attributes:
        rows: the kernel's axes that the operation contracts, in the adapter's order.
        columns: those that it keeps.
        turned: whether `rows` are the adapter's d_out: a table that is looked up by its rows and multiplied by its
            columns is used in both ways.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    turned: bool


def sides_of(use: Use, shape: tuple[int, ...], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Sides | None:
    """How a use lies to an adapter with these axes; None if it is neither that way nor turned.

    Axes of length 1 may stand on either side.
    """

    def long(axes: tuple[int, ...]) -> frozenset[int]:
        return frozenset(axis for axis in axes if shape[axis] > 1)

    found = long(use.inputs), long(use.outputs)
    if found == (long(inputs), long(outputs)):
        return Sides(inputs, outputs, turned=False)
    if use.kind == "product" and found == (long(outputs), long(inputs)):
        return Sides(outputs, inputs, turned=True)
    return None


@dataclass(frozen=True)
class Operation:
    """An operation whose operand is a kernel.

    Attributes:
        use: how it uses it.
        plain: its output without an update.
        adapted: (method, sides) to its output with the update of one task.
    """

    use: Use
    plain: Callable[[], Array]
    adapted: Callable[[Parameterization, Sides], Array]
