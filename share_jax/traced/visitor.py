"""Who is told of the kernels that a program uses, and the place in the program where that happens."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from share_jax.traced.joined import kernels_in, plain
from share_jax.traced.kernel_view import KernelView
from share_jax.traced.operations import Operation

MARK = "share_jax:"
"""Names in a program that begin with it say that a module has this kernel."""

HELD = f"{MARK}held"
"""A name beyond which a kernel is an array like any other."""

CHANGED = ", changed"
"""Behind a mark's text: the module has the kernel scaled, or its axes in another order."""

RETURNED = "the output, which it is a part of"
"""What reads a kernel that goes on as an array like any other."""


class Visitor(Protocol):
    """What is done with the kernels that a program uses."""

    @property
    def abstract(self) -> bool:
        """Whether the program is only read: in place of arrays stand their shapes, and nothing is computed."""
        ...

    def use(self, view: KernelView, operation: Operation) -> Any:
        """The output of an operation of a linear layer; None for the plain one."""
        ...

    def refuse(self, view: KernelView, name: str, reason: str) -> None:
        """Another operation, of this name, reads the kernel; it runs on the kernel as it is if this returns."""
        ...

    def mark(self, view: KernelView, text: str) -> None:
        """A module has this array."""
        ...

    def custom(self, name: str) -> "Visitor | None":
        """Who visits a function with derivatives of its own; None if kernels are not followed into it."""
        ...


class Place(NamedTuple):
    """Where a rule stands.

    Attributes:
        visitor: of the program.
        live: which of the operation's outputs anybody reads.
    """

    visitor: Visitor
    live: list[bool]

    def refuse(self, view: KernelView, name: str, reason: str = "") -> None:
        """Tells the visitor, unless nobody reads what the operation makes."""
        if any(self.live):
            self.visitor.refuse(view, name, reason or read_by(name))

    def ended(self, values: Sequence[Any], name: str) -> list[Any]:
        """Outputs beyond which no kernel is followed."""
        for view in (view for value in values for view in kernels_in(value)):
            self.refuse(view, RETURNED, f"a kernel that '{name}' reads")
        return [plain(value) for value in values]


def read_by(name: str) -> str:
    """Why a kernel that this operation reads cannot be followed.

    >>> read_by("tanh")
    "a kernel that 'tanh' reads, which is no product, convolution or lookup"
    """
    return f"a kernel that '{name}' reads, which is no product, convolution or lookup"
