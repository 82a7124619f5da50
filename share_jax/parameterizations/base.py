"""The one protocol behind `shared_a`, `separate` and `share`: a low-rank factor pair per target and task.

Every parameterisation splits the update of one kernel into leaves that all tasks share and leaves that belong to one
task, and applies it in two products: `down` takes the input to a few columns, `up` takes those to the output. Modules,
adaptation of unmodified models, checkpoints, export and accounting are written against this protocol alone.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from share_jax.errors import InputError, message
from share_jax.typing import Leaves, PRNGKey


@runtime_checkable
class Parameterization(Protocol):
    """How the update of one kernel, seen as a (d_in, d_out) matrix, is made of shared and per-task leaves.

    Implementations are frozen dataclasses of static numbers: hashable, so that they can be attributes of a module.
    A *slot* is one task's leaves without the task axis; a *batched slot* has a leading axis of one slot per example.
    """

    @property
    def name(self) -> str:
        """The method's name in manifests and tables."""
        ...

    @property
    def scale(self) -> float:
        """The static factor alpha / r on the update, stored with the factors."""
        ...

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        """Fresh leaves that all tasks share; empty when nothing is shared."""
        ...

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        """Fresh leaves of one task, with which the update is exactly zero."""
        ...

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "*batch d_in q"]:
        """The matrix that takes x to q columns; it has a batch axis only where it belongs to the task."""
        ...

    def up(self, shared: Leaves, slot: Leaves, h: Float[Array, "batch n q"]) -> Float[Array, "batch n d_out"]:
        """Takes the q columns to the output, for one slot or a batched slot, with the scale applied."""
        ...

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[Array, "d_in r"], Float[Array, "r d_out"]]:
        """The update of one slot as a pair whose product is the kernel's delta, scale folded in."""
        ...


def check_method(method: Any, fix: str) -> None:
    """Refuses what is no parameterisation, a class of them included.

    Args:
      method: what was passed.
      fix: what to do where it is something else altogether.

    Raises:
      InputError: showing it.
    """
    a_class = isinstance(method, type)  # it has all names that its instances have
    if a_class or not isinstance(method, Parameterization):
        got = f"the class {method.__name__}" if a_class else repr(method)
        fix = "pass an instance, such as SharedA(rank=4)" if a_class else fix
        raise InputError(message("method", got=got, expected="a parameterisation such as SharedA()", fix=fix))
