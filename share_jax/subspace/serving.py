"""Between the evolving subspace on the host and the trees that the Flax layers compute with.

A subspace's k differs by layer and side and grows with merges; compiled code wants one shape. So the served trees are
padded to a fixed number of columns with zeros, which change nothing, and the records on the host keep the true sizes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from share_jax.adapters.factors import Adapter, Factors
from share_jax.errors import InputError, message
from share_jax.parameterizations.base import Parameterization
from share_jax.subspace.state import ShareState, Subspace
from share_jax.typing import Array, Leaves

STATE_FIELDS = ("ranks", "norm", "energy_a", "energy_b", "change", "bound")
"""The vectors (T,) of a `Subspace` that say what its tasks are and have lost."""


def adapter_of(method: Parameterization, shared: Mapping[str, Leaves], slot: Mapping[str, Leaves]) -> Adapter:
    """One task's adapter as plain factors, scale folded in.

    Args:
        method: the parameterisation that the leaves are of.
        shared: shared leaves by target.
        slot: the task's leaves by target, without task axis.

    Example:
        >>> from share_jax.parameterizations import SharedA
        >>> shared, slot = {"lora_a": np.ones((8, 2))}, {"lora_b": np.ones((2, 6))}
        >>> adapter = adapter_of(SharedA(rank=2, alpha=4.0), {"query": shared}, {"query": slot})
        >>> adapter["query"].shape, adapter["query"].lora_b[0].tolist()
        ((8, 6), [2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    """
    pairs = {name: method.factors(shared.get(name, {}), leaves) for name, leaves in slot.items()}
    return {name: Factors(np.asarray(a), np.asarray(b)) for name, (a, b) in pairs.items()}


def _padded(matrix: np.ndarray, rows: int, columns: int, what: str) -> Array:
    short = rows - matrix.shape[0], columns - matrix.shape[1]
    if min(short) < 0:
        fix = "serve with a larger num_basis or pseudo_rank, or merge with a smaller k"
        raise InputError(message(what, got=matrix.shape, expected=f"at most {(rows, columns)}", fix=fix))
    return jnp.asarray(np.pad(matrix, ((0, short[0]), (0, short[1]))), jnp.float32)


def shared_leaves(layer: Subspace, num_basis: int) -> Leaves:
    """Both bases of a target, padded to `num_basis` columns.

    Args:
        layer: the target's record.
        num_basis: columns of each served basis.

    Raises:
        InputError: if a basis has more columns, or the geometry is not "columns".

    Example:
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> state = initialize({"cola": {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}})
        >>> {name: leaf.shape for name, leaf in shared_leaves(state.layers["query"], num_basis=5).items()}
        {'basis_a': (8, 5), 'basis_b': (6, 5)}
    """
    if layer.geometry != "columns":
        fix = "merge in the columns geometry"
        raise InputError(message("geometry to serve", got=layer.geometry, expected="columns", fix=fix))
    return {
        "basis_a": _padded(layer.basis_a, layer.basis_a.shape[0], num_basis, "basis_a"),
        "basis_b": _padded(layer.basis_b, layer.basis_b.shape[0], num_basis, "basis_b"),
    }


def task_leaves(layer: Subspace, index: int, num_basis: int, pseudo_rank: int) -> Leaves:
    """One task's coefficients on a target, padded to (num_basis, pseudo_rank).

    Args:
        layer: the target's record.
        index: the task's place in the state.
        num_basis: columns of each served basis, rows of the coefficients.
        pseudo_rank: columns of the coefficients.

    Raises:
        InputError: if they are larger.

    Example:
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> state = initialize({"cola": {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}})
        >>> leaves = task_leaves(state.layers["query"], index=0, num_basis=5, pseudo_rank=3)
        >>> {name: leaf.shape for name, leaf in leaves.items()}
        {'coeff_a': (5, 3), 'coeff_b': (5, 3)}
    """
    return {
        "coeff_a": _padded(layer.coeff_a[index], num_basis, pseudo_rank, "coeff_a"),
        "coeff_b": _padded(layer.coeff_b[index], num_basis, pseudo_rank, "coeff_b"),
    }


def state_arrays(state: ShareState) -> dict[tuple[str, str], np.ndarray]:
    """What is shared of a state, by (target, name): the bases, and every task's norms and bounds."""
    names = ("basis_a", "basis_b", *STATE_FIELDS)
    return {(target, name): getattr(layer, name) for target, layer in state.layers.items() for name in names}


def coefficient_arrays(state: ShareState, index: int) -> dict[tuple[str, str], np.ndarray]:
    """One task's coefficients by (target, name), with as many rows as the bases have columns."""
    names = ("coeff_a", "coeff_b")
    return {(target, name): getattr(layer, name)[index] for target, layer in state.layers.items() for name in names}


def state_of(
    tasks: tuple[str, ...],
    shared: Mapping[tuple[str, str], np.ndarray],
    coefficients: Sequence[Mapping[tuple[str, str], np.ndarray]],
) -> ShareState:
    """The inverse of `state_arrays` and `coefficient_arrays`, for the columns geometry.

    Args:
        tasks: names, in order.
        shared: from `state_arrays`.
        coefficients: from `coefficient_arrays`, one per task.

    Example:
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> state = initialize({"cola": {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}})
        >>> same = state_of(state.tasks, state_arrays(state), [coefficient_arrays(state, 0)])
        >>> np.array_equal(same.layers["query"].basis_a, state.layers["query"].basis_a)
        True
    """
    layers: dict[str, Any] = {}
    for target in dict.fromkeys(target for target, _ in shared):
        own = {name: array for (of, name), array in shared.items() if of == target}
        stacks = {side: np.stack([each[target, side] for each in coefficients]) for side in ("coeff_a", "coeff_b")}
        shape = own["basis_a"].shape[0], own["basis_b"].shape[0]
        layers[target] = Subspace(shape=shape, geometry="columns", **own, **stacks)
    return ShareState(tasks, layers)
