"""New tasks on bases that stay as they are: analytic coefficients, and what the projection loses, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import Packed, groups, pack, shapes_of
from share_jax.annotations import Float, Int
from share_jax.errors import TaskError, message
from share_jax.linalg import basis_products
from share_jax.linalg.padding import pad
from share_jax.runtime.threads import parallel_map
from share_jax.subspace import error_bounds
from share_jax.subspace.factor_columns import Columns, columns_of, unflatten
from share_jax.subspace.prepared_batches import Prepare
from share_jax.subspace.state import ShareState, Subspace


class TaskCoefficients(NamedTuple):
    """What one target stores of some tasks: the fields of `Subspace` that have a task axis."""

    coeff_a: Float[np.ndarray, "T k q"]
    coeff_b: Float[np.ndarray, "T kp q"]
    ranks: Int[np.ndarray, " T"]
    norm: Float[np.ndarray, " T"]
    energy_a: Float[np.ndarray, " T"]
    energy_b: Float[np.ndarray, " T"]
    change: Float[np.ndarray, " T"]
    bound: Float[np.ndarray, " T"]


def slots_of(layer: Subspace) -> TaskCoefficients:
    """The task-axis fields of a record."""
    return TaskCoefficients(**{name: getattr(layer, name) for name in TaskCoefficients._fields})


def join(parts: Sequence[TaskCoefficients]) -> TaskCoefficients:
    """Tasks one after another along the task axis, coefficients padded to the widest."""
    q = max(part.coeff_a.shape[2] for part in parts)
    wide = [p._replace(coeff_a=pad(p.coeff_a, 2, q), coeff_b=pad(p.coeff_b, 2, q)) for p in parts]
    return TaskCoefficients(*(np.concatenate(fields) for fields in zip(*wide, strict=True)))


def empty_slots(layer: Subspace, count: int) -> TaskCoefficients:
    """`count` tasks without an adapter on this target."""
    zeros = np.zeros(count)
    k, kp = layer.num_basis
    q = layer.coeff_a.shape[2]
    none = np.zeros(count, np.int32)
    coeff_a, coeff_b = np.zeros((count, k, q), np.float32), np.zeros((count, kp, q), np.float32)
    return TaskCoefficients(coeff_a, coeff_b, none, zeros, zeros, zeros, zeros, zeros)


def check_new(state: ShareState, names: Sequence[str]) -> None:
    """Refuses names that are taken.

    Raises:
        TaskError: a name exists already.
    """
    taken = [name for name in names if name in state.tasks]
    if taken:
        raise TaskError(
            message(
                "task", got=f"{taken[0]!r}, which exists", expected="a new name", fix="rename it or remove the old one"
            )
        )


def project_columns(layers: Sequence[Subspace], packed: Packed, columns: Columns) -> list[TaskCoefficients]:
    """New tasks on each layer's bases, all of one shape and geometry. Errors are against the raw factors."""
    return parallel_map(
        lambda i: project_layer(layers[i], Packed(*(x[i] for x in packed)), columns.layer(i)), range(len(layers))
    )


def project_layer(layer: Subspace, packed: Packed, columns: Columns) -> TaskCoefficients:
    """One layer's part of `project_columns`, of arrays without the axis of layers."""
    a, b, ranks = packed
    if not len(ranks):
        return empty_slots(layer, 0)
    coeff_a = basis_products.project(layer.basis_a, columns.a)
    coeff_b = basis_products.project(layer.basis_b, columns.b)
    energy_a, energy_b = columns.energies()
    if layer.geometry == "columns":
        kept = np.minimum(ranks, min(layer.shape))
        gram_a, gram_b = (None, None) if columns.known is None else columns.known[:2]
        grams = _grams(layer.basis_a, a, coeff_a, gram_a), _grams(layer.basis_b, b, coeff_b, gram_b)
        size, squared, margin = error_bounds.distance_from_grams(*grams)
    else:
        kept = ranks
        rec_a = reconstruct(layer.basis_a, coeff_a, layer, 0, kept)
        rec_b = reconstruct(layer.basis_b, coeff_b, layer, 1, kept)
        size, margin = error_bounds.squared_norm(a, b), error_bounds.rounding(a, b)
        squared = error_bounds.squared_distance(a, b, rec_a, rec_b, size)
    error = np.sqrt(squared)
    bound = np.where(ranks > 0, error + margin, 0)
    return TaskCoefficients(coeff_a, coeff_b, kept, np.sqrt(size), energy_a, energy_b, error, bound)


def _grams(
    basis: Float[np.ndarray, "d k"],
    factor: Float[np.ndarray, "T d p"],
    coeff: Float[np.ndarray, "T k q"],
    own: Float[np.ndarray, "T p p"] | None,
) -> error_bounds.Grams:
    """The Gram matrices of factors x and of what is stored of them, y = basis @ coeff, in float64; y is not formed.

    `own` is x.T x where that is known.
    """
    u, c = basis.astype(np.float64), coeff.astype(np.float64)
    on_basis = basis_products.project(u, factor.astype(np.float64))
    own = basis_products.gram(factor) if own is None else own
    return error_bounds.Grams(own, on_basis.mT @ c, c.mT @ (basis_products.gram(u) @ c))


def reconstruct(
    basis: Float[np.ndarray, "rows k"],
    coeff: Float[np.ndarray, "T k q"],
    layer: Subspace,
    side: int,
    ranks: Int[np.ndarray, " T"],
) -> Float[np.ndarray, "T d p"]:
    """Factors of several tasks in float64, by one product for all of them.

    Args:
        basis: `basis_a` or `basis_b` of the layer.
        coeff: the tasks' coefficients on it.
        layer: the target's record, which says how a factor is laid out.
        side: 0 for the factors A, 1 for B.
        ranks: of the tasks, (T,).

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> cola = Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))
        >>> layer = initialize({"cola": {"query": cola}}).layers["query"]
        >>> a = reconstruct(layer.basis_a, layer.coeff_a, layer, 0, layer.ranks)
        >>> b = reconstruct(layer.basis_b, layer.coeff_b, layer, 1, layer.ranks)
        >>> np.allclose(a[0] @ b[0].T, cola.lora_a @ cola.lora_b, atol=1e-5)
        True
    """
    x = basis_products.combine(basis.astype(np.float64), coeff.astype(np.float64))
    if layer.geometry == "columns":
        return x
    x = unflatten(x, layer.shape[side])
    return x * (np.arange(x.shape[-1]) < ranks[:, None])[:, None, :]


def slots_on(
    layers: Mapping[str, Subspace], adapters: Sequence[Adapter], prepare: Prepare | None = None
) -> dict[str, TaskCoefficients]:
    """Several new tasks on every target of `layers`, group by group.

    Args:
        layers: the bases.
        adapters: the tasks.
        prepare: packs and balances them, for the columns geometry; the layers' own geometry is used if None.
    """
    known = {name: layer.shape for name, layer in layers.items()}
    shapes_of(adapters, known)
    out: dict[str, TaskCoefficients] = {}
    keys = {name: (*x.shape, x.geometry, x.basis_a.shape[0]) for name, x in layers.items()}
    for names in groups(keys).values():
        if not any(name in adapter for name in names for adapter in adapters):
            out.update({name: empty_slots(layers[name], len(adapters)) for name in names})
            continue
        group = [layers[name] for name in names]
        if prepare is None:
            packed = pack(adapters, names, columns=group[0].pseudo_rank)
            columns = columns_of(packed, group[0].geometry)
        else:
            packed, columns = prepare(adapters, names, group[0].pseudo_rank)
        out.update(zip(names, project_columns(group, packed, columns), strict=True))
    return out


def append(layers: Mapping[str, Subspace], slots: Mapping[str, Sequence[TaskCoefficients]]) -> dict[str, Subspace]:
    """Records with further tasks appended."""
    joined = {name: join([slots_of(layer), *slots[name]]) for name, layer in layers.items()}
    return {name: replace(layer, **joined[name]._asdict()) for name, layer in layers.items()}


def project(state: ShareState, adapters: Mapping[str, Adapter]) -> ShareState:
    """Appends tasks on the bases as they are: analytic coefficients `basis.T @ factor`, no old task touched.

    What the projection loses is in the new tasks' `change` and `bound`.

    Args:
        state: what has been learnt, with the bases.
        adapters: new tasks by name, on targets of the state.

    Raises:
        TaskError: a name is taken.
        InputError: a target's shape differs from the set's, or the set lacks a target that an adapter has.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize, report
        >>> rng = np.random.default_rng(0)
        >>> cola = {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}
        >>> half = {"query": Factors(cola["query"].lora_a, cola["query"].lora_b, scale=0.5)}
        >>> state = project(initialize({"cola": cola}), {"half": half})  # which lies in the same subspace
        >>> state.tasks, report(state)["half"].error_bound < 1e-5
        (('cola', 'half'), True)
    """
    check_new(state, list(adapters))
    require_targets(state.layers, adapters)
    ranks = {name: [x[name].rank for x in adapters.values() if name in x] for name in state.layers}
    layers = {name: widened(layer, max([0, *ranks[name]])) for name, layer in state.layers.items()}
    slots = slots_on(layers, list(adapters.values()))
    return ShareState((*state.tasks, *adapters), append(layers, {n: [s] for n, s in slots.items()}))


def widened(layer: Subspace, p: int) -> Subspace:
    """A flat record for ranks up to p: its vectors get the zeros of further columns. Others stay as they are."""
    if layer.geometry == "columns" or p <= layer.pseudo_rank:
        return layer
    sides = [pad(x, 0, p * d) for x, d in zip((layer.basis_a, layer.basis_b), layer.shape, strict=True)]
    return replace(layer, basis_a=sides[0], basis_b=sides[1])


def require_targets(layers: Mapping[str, Subspace], adapters: Mapping[str, Adapter]) -> None:
    """Refuses adapters with a target that has no basis.

    Raises:
        TaskError: an adapter has such a target.
    """
    for task, adapter in adapters.items():
        missing = [name for name in adapter if name not in layers]
        if missing:
            got = f"target {missing[0]}, which has no basis"
            raise TaskError(message(f"task {task!r}", got=got, expected="targets of the set", fix="merge it instead"))
