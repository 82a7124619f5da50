"""From a bank of tasks, which a model computes with, to adapters or a subspace, which files hold.

Adapters are named as `share_jax.layers.kernel_trees` names kernels.
"""

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import jax
import numpy as np

from share_jax.adapters.factors import Factors
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError, message
from share_jax.layers.kernel_trees import by_kernel, target_names
from share_jax.layers.targets import Target
from share_jax.linalg.padding import pad
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.share import Share
from share_jax.subspace.error_bounds import rounding, squared_norm
from share_jax.subspace.initialization import initialize
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.serving import STATE_FIELDS
from share_jax.subspace.state import ShareState, Subspace
from share_jax.trees import flat
from share_jax.typing import Leaves, Tree


def kernel_sizes(targets: Sequence[Target]) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of every adapter by its name."""
    return {name: (target.d_in, target.d_out) for target in targets for name in target_names(target)}


def bank_adapters(bank: TaskBank, adapted: Any) -> dict[str, dict[str, Factors]]:
    """Every task's adapter, factors as they are learnt and the scale beside them.

    Args:
        bank: the learnt tasks.
        adapted: the adapted model that learnt them.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=share_jax.SharedA(rank=2))
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> bank = TaskBank(trees["shared"], trees["tasks"], ("cola", "rte"))
        >>> factors = bank_adapters(bank, adapted)["rte"]["kernel"]
        >>> factors.shape, factors.rank, factors.scale
        ((4, 3), 2, 4.0)
    """
    return {
        name: slot_adapter(adapted.method, adapted.targets, bank.shared, read_slot(bank.tasks, index))
        for index, name in enumerate(bank.names)
    }


def bank_heads(bank: TaskBank, adapted: Any) -> dict[str, dict[str, np.ndarray]]:
    """Every task's heads by path.

    Args:
        bank: the learnt tasks.
        adapted: the adapted model that learnt them.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", heads="bias")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> bank = TaskBank(trees["shared"], trees["tasks"], ("cola", "rte"))
        >>> bank_heads(bank, adapted)["rte"]
        {'bias': array([0., 0., 0.], dtype=float32)}
    """
    stacks = {path: np.asarray(leaf) for path, leaf in flat(bank.tasks).items() if path in adapted.heads}
    return {name: {path: stack[index] for path, stack in stacks.items()} for index, name in enumerate(bank.names)}


def slot_adapter(method: Parameterization, targets: Sequence[Target], shared: Tree, slot: Tree) -> dict[str, Factors]:
    """One slot's adapter; see `bank_adapters`."""
    plain, scale = _at_scale_one(method)
    out = {}
    with jax.default_matmul_precision("highest"):
        for name, own, leaves in by_layer(targets, shared, slot):
            a, b = plain.factors(own, leaves)
            out[name] = Factors(np.asarray(a), np.asarray(b), scale)
    return out


def _at_scale_one(method: Parameterization) -> tuple[Parameterization, float]:
    """The method with the alpha that makes its scale 1, and its scale: a LoRA file keeps the two apart.

    A method without alpha keeps its scale in the factors.
    """
    alpha = getattr(method, "alpha", None)
    if method.scale == 1 or alpha is None or not is_dataclass(method):
        return method, 1.0
    plain = replace(method, alpha=alpha / method.scale)  # pyright: ignore[reportCallIssue]
    return (plain, method.scale) if plain.scale == 1 else (method, 1.0)


def by_layer(targets: Sequence[Target], shared: Tree, slot: Tree) -> list[tuple[str, Leaves, Leaves]]:
    """(name, shared leaves, slot's leaves) of every adapter."""
    own = by_kernel(targets, slot)
    return [(name, leaves, own[name]) for name, leaves in by_kernel(targets, shared).items()]


def bank_state(bank: TaskBank, adapted: Any, before: ShareState | None = None) -> ShareState:
    """The bank's tasks in a subspace.

    Of `Share` the bases and coefficients are the state's, to the bit, without the padding that serving needs. Of other
    methods the bases are those that all factors span, and the factors are the same to float32 rounding.

    Args:
        bank: the learnt tasks, at least one.
        adapted: the adapted model that learnt them.
        before: the state that the bank was made of, if it was: a bank keeps no record of what its tasks have lost, so
            that comes from here.

    Raises:
        InputError: the bank has no tasks, or `before` has other bases or coefficients of a task.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=Share(num_basis=2, pseudo_rank=1))
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> bank = TaskBank(trees["shared"], trees["tasks"], ("cola", "rte"))
        >>> state = bank_state(bank, adapted)
        >>> state.tasks, state.layers["kernel"].num_basis
        (('cola', 'rte'), (2, 2))
    """
    if not bank.names:
        raise InputError(message("bank", got="no tasks", expected="at least one", fix="learn a task first"))
    if not isinstance(adapted.method, Share):
        return initialize(bank_adapters(bank, adapted), Choice(explained_variance=1.0))
    slots = [by_layer(adapted.targets, bank.shared, read_slot(bank.tasks, t)) for t in range(len(bank.names))]
    layers = {}
    for parts in zip(*slots, strict=True):  # one adapter of every task
        name, own, _ = parts[0]
        layers[name] = _subspace(own, [leaves for _, _, leaves in parts])
    state = ShareState(bank.names, layers)
    return state if before is None else _with_record(state, before)


def _subspace(shared: Leaves, slots: Sequence[Leaves]) -> Subspace:
    """One target of a `Share` bank; columns of zeros at the end of a basis or of coefficients are padding."""
    bases = [_trimmed(np.asarray(shared[name])) for name in ("basis_a", "basis_b")]
    stacks = [
        np.stack([np.asarray(leaves[name])[: basis.shape[1]] for leaves in slots])
        for name, basis in zip(("coeff_a", "coeff_b"), bases, strict=True)
    ]
    used = np.any([np.any(stack != 0, axis=1) for stack in stacks], axis=0)  # (T, p)
    ranks = np.where(used.any(axis=1), used.shape[1] - np.argmax(used[:, ::-1], axis=1), 0).astype(np.int32)
    width = max(1, int(ranks.max()))
    coeff_a, coeff_b = (np.ascontiguousarray(stack[:, :, :width]) for stack in stacks)
    a, b = (basis.astype(np.float64) @ c.astype(np.float64) for basis, c in zip(bases, (coeff_a, coeff_b), strict=True))
    energies = [np.sum(side**2, axis=(1, 2)) for side in (a, b)]
    bound = np.where(ranks > 0, rounding(a, b), 0)
    return Subspace(
        shape=(bases[0].shape[0], bases[1].shape[0]), geometry="columns", basis_a=bases[0], basis_b=bases[1],
        coeff_a=coeff_a, coeff_b=coeff_b, ranks=ranks, norm=np.sqrt(squared_norm(a, b)),
        energy_a=energies[0], energy_b=energies[1], change=np.zeros(len(slots)), bound=bound,
    )  # fmt: skip


def _trimmed(basis: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(np.any(basis != 0, axis=0))
    return np.ascontiguousarray(basis[:, : used[-1] + 1 if used.size else 0])


def _with_record(state: ShareState, before: ShareState) -> ShareState:
    """The state with what `before` says of the tasks that it knows."""
    layers = {}
    for name, layer in state.layers.items():
        known = before.layers.get(name)
        vectors = {field: np.array(getattr(layer, field)) for field in STATE_FIELDS}
        for index, task in enumerate(state.tasks):
            if known is None or task not in before.tasks:
                continue
            old = before.index(task)
            if not _same(layer, index, known, old):
                got, expected = f"other bases or coefficients of {name}", "those of the bank"
                fix = "pass the state that the bank was made of, or none"
                raise InputError(message(f"task {task!r} before", got=got, expected=expected, fix=fix))
            for field, values in vectors.items():
                values[index] = getattr(known, field)[old]
        # a record's ranks count columns that came out as zeros, too
        width = max(layer.coeff_a.shape[2], int(vectors["ranks"].max(initial=0)))
        wide = {side: pad(getattr(layer, side), 2, width) for side in ("coeff_a", "coeff_b")}
        layers[name] = replace(layer, **vectors, **wide)
    return ShareState(state.tasks, layers)


def _same(layer: Subspace, index: int, known: Subspace, old: int) -> bool:
    width = min(layer.coeff_a.shape[2], known.coeff_a.shape[2])  # beyond it a task has zeros
    pairs = [(layer.basis_a, known.basis_a), (layer.basis_b, known.basis_b)]
    for name in ("coeff_a", "coeff_b"):
        pairs.append((getattr(layer, name)[index][:, :width], getattr(known, name)[old][:, :width]))
    return all(np.array_equal(x, y) for x, y in pairs)
