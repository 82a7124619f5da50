"""The flat geometry, and the choice between the two by measured error per stored number.

Columns share directions: a task costs p (k + k') numbers. Flat shares whole factors: a basis vector costs p times more,
a task only k + k' numbers; it pays where adapters are combinations of few others, factor by factor.
"""

from collections.abc import Mapping

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import groups, pack, shapes_of
from share_jax.errors import InputError, message
from share_jax.linalg.basis_products import side_by_side
from share_jax.linalg.spectrum import Spectrum, spectra
from share_jax.subspace.error_curves import RESERVE, RankSchedule, cut_within, flat_curve, ranks_by_tolerance
from share_jax.subspace.factor_columns import columns_of
from share_jax.subspace.initialization import initialize, without_tasks
from share_jax.subspace.projection import append, slots_on
from share_jax.subspace.rank_choice import Choice, choose
from share_jax.subspace.state import ShareState, Subspace, layer_size, relative

Pair = tuple[Spectrum, Spectrum]


def initialize_with(
    adapters: Mapping[str, Adapter],
    choice: Choice | None = None,
    *,
    geometry: str = "columns",
    seed: int = 0,
) -> ShareState:
    """`initialize` in a geometry: "columns" (the method's), "flat", or "auto", the better one for each target.

    "auto" compares at equal terms: with `max_error`, the geometry that stores less within it; otherwise, the one whose
    error is lower in the numbers that the columns geometry takes for `choice`.

    Raises:
        InputError: there is no adapter, two disagree about a target's shape, or there is no such geometry.
        LimitError: `max_error` is below what float32 can reach.
    """
    choice = choice or Choice()
    if geometry not in ("columns", "flat", "auto"):
        raise InputError(message("geometry", got=geometry, expected="columns, flat or auto", fix="pass columns"))
    if geometry == "columns" or not adapters:
        return initialize(adapters, choice, seed=seed)
    found, p = _spectra(adapters, seed)
    if geometry == "flat":
        return _flat(adapters, choice, found)
    columns = initialize(adapters, choice, seed=seed)
    if choice.max_error is not None:
        return _smaller(columns, _flat(adapters, choice, found), choice.max_error * (1 - RESERVE))
    return _better(adapters, columns, found, p)


def _spectra(adapters: Mapping[str, Adapter], seed: int) -> tuple[dict[str, Pair], dict[str, int]]:
    """Spectra of the tasks' whole factors, per target, and the rank that they are laid out for."""
    tasks = list(adapters.values())
    found: dict[str, Pair] = {}
    widths: dict[str, int] = {}
    for names in groups(shapes_of(tasks, {})).values():
        packed = pack(tasks, names)
        sides = [spectra([[side_by_side(x)] for x in side], seed=seed) for side in columns_of(packed, "flat")[:2]]
        for name, *pair in zip(names, *sides, strict=True):
            found[name], widths[name] = (pair[0], pair[1]), packed.a.shape[-1]
    return found, widths


def _with_tasks(
    adapters: Mapping[str, Adapter], found: Mapping[str, Pair], ks: Mapping[str, tuple[int, int]]
) -> ShareState:
    tasks = list(adapters.values())
    layers = {}
    for name, shape in shapes_of(tasks, {}).items():
        if name in ks:
            bases = [np.ascontiguousarray(x.basis[:, :k]) for x, k in zip(found[name], ks[name], strict=True)]
            layers[name] = without_tasks(shape, "flat", bases[0], bases[1], 1)
    own = [{name: f for name, f in task.items() if name in layers} for task in tasks]
    return ShareState(tuple(adapters), append(layers, {n: [s] for n, s in slots_on(layers, own).items()}))


def _flat(adapters: Mapping[str, Adapter], choice: Choice, found: Mapping[str, Pair]) -> ShareState:
    if choice.max_error is None:
        ks = {}
        for name, pair in found.items():
            ks[name] = (choose(choice, pair[0]), choose(choice, pair[1]))
        return _with_tasks(adapters, found, ks)
    full = _with_tasks(adapters, found, {n: (a.rank, b.rank) for n, (a, b) in found.items()})
    schedules = {n: RankSchedule(ranks_by_tolerance(a), ranks_by_tolerance(b)) for n, (a, b) in found.items()}
    errors = np.sum([flat_curve(full.layers[n], schedules[n]) for n in found], axis=0)
    norms = np.sqrt(np.sum([layer.norm**2 for layer in full.layers.values()], axis=0))
    return cut_within(
        errors,
        norms,
        choice.max_error,
        lambda step: _with_tasks(adapters, found, {n: x.at(step) for n, x in schedules.items()}),
    )


def _smaller(columns: ShareState, flat: ShareState, limit: float) -> ShareState:
    """Per target the record that stores less, as long as every task stays within the limit."""
    saving = {n: layer_size(x) - layer_size(flat.layers[n]) for n, x in columns.layers.items()}
    taken = sorted((n for n, saved in saving.items() if saved > 0), key=lambda n: (-saving[n], n))
    while True:
        layers = {n: flat.layers[n] if n in taken else x for n, x in columns.layers.items()}
        state = ShareState(columns.tasks, layers)
        if not taken or np.all(relative(state, "bound") <= limit):
            return state
        taken.pop()


def _better(
    adapters: Mapping[str, Adapter], columns: ShareState, found: Mapping[str, Pair], widths: Mapping[str, int]
) -> ShareState:
    """Per target the record with the smaller error, flat being given as many numbers as columns took."""
    ks = {}
    for name, layer in columns.layers.items():
        each = widths[name] * sum(layer.shape) + 2 * int(np.count_nonzero(layer.ranks))
        k = layer_size(layer) // each
        if k >= 1:
            ks[name] = (min(k, found[name][0].rank), min(k, found[name][1].rank))
    flat = _with_tasks(adapters, found, ks).layers
    layers = dict(columns.layers)
    for name, layer in flat.items():
        if _error(layer) < _error(columns.layers[name]):
            layers[name] = layer
    return ShareState(columns.tasks, layers)


def _error(layer: Subspace) -> float:
    return float(np.sum(layer.bound**2))
