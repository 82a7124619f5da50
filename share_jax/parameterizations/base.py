"""The one protocol behind `shared_a`, `separate` and `share`: a low-rank factor pair per target and task.

Every parameterisation splits the update of one kernel into leaves that all tasks share and leaves that belong to one
task, and applies it in two products: `down` takes the input to a few columns, `up` takes those to the output. A
`LeafSpec` per leaf says the rest: what trains, how it is sharded, what a checkpoint holds follow from it. Modules,
adaptation of unmodified models, checkpoints, export and accounting are written against this protocol alone.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from share_jax.annotations import Float
from share_jax.errors import InputError, message
from share_jax.typing import AnyArray, Array, Leaves, PRNGKey

Side = Literal["d_in", "d_out"]
"""The side of a kernel, seen as a (d_in, d_out) matrix."""


@dataclass(frozen=True)
class LeafSpec:
    """One leaf of the update of one kernel.

    Attributes:
        shape: its shape, of one task where it is a task's.
        axes: for each axis the kernel's side that it lies along; None for a rank or another number of the method's own.
        owner: "shared" by all tasks, or each "task" has its own.
        trains: in the "first" task and never after it, "never", or "always" while its task is learnt.

    Raises:
        InputError: if there is not one entry of `axes` per axis, or what is shared would train after the first task.

    Example:
        >>> LeafSpec((768, 4), ("d_in", None), owner="shared", trains="first").shape
        (768, 4)
        >>> LeafSpec((768, 4), ("d_in", None), owner="shared", trains="always")
        Traceback (most recent call last):
        share_jax.errors.InputError: when a leaf of owner 'shared' trains: got 'always', expected first or never; ...
    """

    shape: tuple[int, ...]
    axes: tuple[Side | None, ...]
    owner: Literal["shared", "task"] = "task"
    trains: Literal["first", "never", "always"] = "always"

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            fix = "name a side of the kernel, or None, for each axis"
            raise InputError(message("axes of a leaf", got=self.axes, expected=f"{len(self.shape)} entries", fix=fix))
        allowed = ("first", "never") if self.owner == "shared" else ("never", "always")
        if self.trains not in allowed:
            got, fix = repr(self.trains), "a leaf that trains in every task has to be the task's own"
            what = f"when a leaf of owner {self.owner!r} trains"
            raise InputError(message(what, got=got, expected=" or ".join(allowed), fix=fix))


@runtime_checkable
class Parameterization(Protocol):
    """How the update of one kernel, seen as a (d_in, d_out) matrix, is made of shared and per-task leaves.

    Implementations are frozen dataclasses of static numbers: hashable, so that they can be attributes of a module.
    A *slot* is one task's leaves without the task axis; a *batched slot* has a leading axis of one slot per example.

    Example:
        >>> from share_jax.parameterizations import SharedA
        >>> isinstance(SharedA(rank=4), Parameterization)
        True
        >>> {name: leaf.owner for name, leaf in SharedA(rank=4).leaves(768, 3072).items()}
        {'lora_a': 'shared', 'lora_b': 'task'}
    """

    @property
    def name(self) -> str:
        """The method's name in manifests and tables."""
        ...

    @property
    def scale(self) -> float:
        """The static factor alpha / r on the update, stored with the factors."""
        ...

    @property
    def rank(self) -> int:
        """Rank of one task's update, of which a separate LoRA is counted for comparison."""
        ...

    @property
    def pair(self) -> tuple[str, str] | None:
        """Names of leaves (d_in, r) and (r, d_out) whose product, times the scale, is the update; None if not two."""
        ...

    def leaves(self, d_in: int, d_out: int) -> dict[str, LeafSpec]:
        """What `init_shared` and `init_task` make, by name."""
        ...

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        """Fresh leaves that all tasks share; empty when nothing is shared."""
        ...

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        """Fresh leaves of one task, with which the update is exactly zero."""
        ...

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "*batch d_in q"]:
        """The matrix that takes x to q columns; it has a batch axis only where a task's leaf lies along d_in."""
        ...

    def up(self, shared: Leaves, slot: Leaves, h: Float[Array, "batch n q"]) -> Float[Array, "batch n d_out"]:
        """Takes the q columns to the output, for one slot or a batched slot, with the scale applied."""
        ...

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[AnyArray, "d_in r"], Float[AnyArray, "r d_out"]]:
        """The update of one slot as a pair whose product is the kernel's delta, scale folded in; NumPy of NumPy's."""
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


def specs(method: Parameterization, owner: str) -> dict[str, LeafSpec]:
    """What of a method's leaves does not depend on the kernel, by the leaf's name.

    Args:
        method: the parameterisation.
        owner: "shared" or "task": whose leaves.
    """
    return {name: spec for name, spec in method.leaves(1, 1).items() if spec.owner == owner}


def own_down(method: Parameterization) -> tuple[str, ...]:
    """Names of the task's leaves that `down` takes, those along d_in; none where all tasks share it."""
    return tuple(name for name, spec in specs(method, "task").items() if "d_in" in spec.axes)
