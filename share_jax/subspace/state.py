"""The records of form 2: per target one evolving subspace and every task's coefficients on it.

Arrays here live on the host: k differs by layer and side, and slicing device arrays would compile for each. A record is
frozen; every transition returns a new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from share_jax.adapters.factors import Factors
from share_jax.annotations import Bool, Float, Int
from share_jax.errors import TaskError, message

Geometry = Literal["columns", "flat"]
"""What a basis is of: the factors' columns (the method's), or whole factors laid out as one vector per side."""

Vector = Float[np.ndarray, " T"]


@dataclass(frozen=True)
class Subspace:
    """One target: `update_t = (basis_a @ coeff_a[t]) @ (basis_b @ coeff_b[t]).T`.

    In the flat geometry `basis @ coeff` is one vector of p * d numbers, the factor's columns one after another. A task
    of smaller rank takes its own first ones.
    Norms and bounds are absolute Frobenius norms of this target's update.

    Example:
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> cola = Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))
        >>> layer = initialize({"cola": {"query": cola}}).layers["query"]
        >>> layer.num_basis, layer.pseudo_rank
        ((2, 2), 2)
        >>> np.allclose(layer.factor("a", 0) @ layer.factor("b", 0).T, cola.lora_a @ cola.lora_b, atol=1e-5)
        True
    """

    shape: tuple[int, int]
    geometry: Geometry
    basis_a: Float[np.ndarray, "rows_a k"]  # rows_a = d_in, or p * d_in in the flat geometry
    basis_b: Float[np.ndarray, "rows_b kp"]
    coeff_a: Float[np.ndarray, "T k q"]  # q = p, or 1 in the flat geometry
    coeff_b: Float[np.ndarray, "T kp q"]
    ranks: Int[np.ndarray, " T"]  # 0: the task has no adapter here
    norm: Vector  # of the update, as learnt
    energy_a: Vector  # squared norm of the stacked factor, as learnt
    energy_b: Vector
    change: Vector  # measured, in the last merge that touched this target
    bound: Vector  # proven, on the update's error since it was learnt

    @property
    def pseudo_rank(self) -> int:
        """Columns of a reconstructed factor, p."""
        return self.coeff_a.shape[2] if self.geometry == "columns" else self.basis_a.shape[0] // self.shape[0]

    @property
    def num_basis(self) -> tuple[int, int]:
        """(k, k') of the two sides."""
        return self.basis_a.shape[1], self.basis_b.shape[1]

    def factor(self, side: Literal["a", "b"], index: int | slice) -> Float[np.ndarray, "..."]:
        """Reconstructed factor (d, p) of one task, or (tasks, d, p) of several, rounded once, to the basis's dtype."""
        basis, coeff = (self.basis_a, self.coeff_a) if side == "a" else (self.basis_b, self.coeff_b)
        # in float32 the sum over k columns would be off by more than what is proven of the update
        product = (basis.astype(np.float64) @ coeff[index].astype(np.float64)).astype(basis.dtype)
        if self.geometry == "columns":
            return product
        d = self.shape[0 if side == "a" else 1]
        vectors = product.reshape(*product.shape[:-2], self.pseudo_rank, d)
        return np.swapaxes(vectors, -1, -2) * self.mask(index)[..., None, :]

    def mask(self, index: int | slice) -> Bool[np.ndarray, "... p"]:
        """Which of the p columns are the task's own: a combination of vectors may also fill the others."""
        return np.arange(self.pseudo_rank) < np.asarray(self.ranks[index])[..., None]


def leading(layer: Subspace, k: int, kp: int) -> Subspace:
    """The record on the first k and k' columns of its bases; `change` and `bound` stay those of the whole."""
    return replace(
        layer,
        basis_a=layer.basis_a[:, :k],
        basis_b=layer.basis_b[:, :kp],
        coeff_a=layer.coeff_a[:, :k],
        coeff_b=layer.coeff_b[:, :kp],
    )


@dataclass(frozen=True)
class ShareState:
    """All targets of one model, and the names of the tasks along the leading axis of every coefficient stack.

    Example:
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> state = initialize({"cola": {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}})
        >>> state.index("cola"), list(state.layers)
        (0, ['query'])
        >>> state.index("rte")
        Traceback (most recent call last):
        share_jax.errors.TaskError: task: got 'rte', expected one of cola; check the name
    """

    tasks: tuple[str, ...] = ()
    layers: Mapping[str, Subspace] = field(default_factory=dict)

    def index(self, task: str) -> int:
        """Position of `task`.

        Raises:
            TaskError: there is no such task.
        """
        if task not in self.tasks:
            known = ", ".join(self.tasks[:8]) + (", ..." if len(self.tasks) > 8 else "")
            raise TaskError(
                message("task", got=repr(task), expected=f"one of {known or 'none yet'}", fix="check the name")
            )
        return self.tasks.index(task)


@dataclass(frozen=True)
class Report:
    """What a task has lost, relative to its whole adapter: `sqrt(sum_l x_l^2) / sqrt(sum_l norm_l^2)`.

    Example:
        >>> Report(relative_change=0.01, error_bound=0.03).error_bound
        0.03
    """

    relative_change: float  # measured, in the last merge
    error_bound: float  # proven, since it was learnt


def factors_of(state: ShareState, task: str) -> dict[str, Factors]:
    """The task's adapter out of the subspace: balanced, scale 1, its own ranks, only the targets it has.

    Raises:
        TaskError: there is no such task.
    """
    t = state.index(task)
    out = {}
    for name, layer in state.layers.items():
        rank = int(layer.ranks[t])
        if rank:
            a, b = layer.factor("a", t)[:, :rank], layer.factor("b", t)[:, :rank]
            out[name] = Factors(np.ascontiguousarray(a), np.ascontiguousarray(b.T))
    return out


def relative(state: ShareState, quantity: Literal["change", "bound"]) -> Vector:
    """Per task, over the whole adapter, relative to its norm; 0 for a task whose update is zero."""
    total = np.zeros(len(state.tasks))
    norm = np.zeros(len(state.tasks))
    for layer in state.layers.values():
        total += getattr(layer, quantity) ** 2
        norm += layer.norm**2
    return np.sqrt(total / np.where(norm > 0, norm, 1))


def report(state: ShareState) -> dict[str, Report]:
    """Measured change and proven bound of every task.

    Example:
        >>> from share_jax.subspace import Choice, initialize
        >>> rng = np.random.default_rng(0)
        >>> adapter = {"query": Factors(rng.normal(size=(8, 4)), rng.normal(size=(4, 6)))}
        >>> for k in (2, 4):
        ...     print(k, report(initialize({"cola": adapter}, Choice(k=k)))["cola"].error_bound < 1e-5)
        2 False
        4 True
    """
    rows = zip(state.tasks, relative(state, "change"), relative(state, "bound"), strict=True)
    return {task: Report(float(change), float(bound)) for task, change, bound in rows}


def stack_size(state: ShareState) -> int:
    """Numbers that a set must store: both bases, and each task's coefficients without their padding."""
    return sum(layer_size(layer) for layer in state.layers.values())


def layer_size(layer: Subspace) -> int:
    """Numbers that one target must store."""
    columns = int(layer.ranks.sum()) if layer.geometry == "columns" else int(np.count_nonzero(layer.ranks))
    return layer.basis_a.size + layer.basis_b.size + columns * sum(layer.num_basis)
