"""New adapters into the subspace (method, phase 3), with what every old task loses measured and bounded.

With C all old coefficients side by side, the left singular vectors of [basis @ C, new] are those of [basis @ L, new]
for any L L.T = C C.T, which has k + r columns however many tasks there are. Old coefficients rotate by
basis_new.T @ basis_old, new ones are projections; both are least-squares optimal. Old data are never needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import shapes_of
from share_jax.errors import InputError, LimitError, message
from share_jax.subspace.duplicates import copies
from share_jax.subspace.error_curves import (
    RESERVE,
    TOLERANCES,
    Ladder,
    first_rung,
    flat_curve,
    rungs,
    squared_errors,
    widest,
)
from share_jax.subspace.initialization import without_tasks
from share_jax.subspace.joint_spectra import Joint, Path, apply, energies, joint_spectra
from share_jax.subspace.projection import Slots, check_new, empty_slots, join, slots_of
from share_jax.subspace.rank_choice import Choice, choose
from share_jax.subspace.state import ShareState, Subspace, relative


def merge(
    state: ShareState,
    adapters: Mapping[str, Adapter],
    choice: Choice | None = None,
    *,
    limit: float | None = None,
    on_limit: Literal["grow", "refuse"] = "grow",
    path: Path = "incremental",
    seed: int = 0,
) -> ShareState:
    """Learns new adapters: new bases for what the set holds and them together, coefficients for all tasks.

    Unless `choice` names a k, no basis gets smaller. A task may lack targets, and may bring new ones. An adapter
    equal to one that the set has learnt shares that task's coefficients and moves nothing.

    Args:
        state: what has been learnt; may be empty.
        adapters: new tasks by name.
        choice: how k is chosen; `max_error` here is a `limit` that chooses the smallest k that holds it.
        limit: no task's proven error, relative over its whole adapter, may pass it.
        on_limit: grow k as far as needed (cuts leave `RESERVE` of the limit to the rounding of later merges), or refuse
            and say how far that is.
        path: the incremental stack, or the whole one (an oracle; its cost grows with the tasks).
        seed: for the randomised path of wide stacks.

    Raises:
        TaskError: a name is taken.
        InputError: shapes disagree with the set's, or there is no adapter.
        LimitError: a limit would be passed and `on_limit` is "refuse", or no k is enough. `state` is unchanged.
    """
    choice = choice or Choice()
    check_new(state, list(adapters))
    if not adapters:
        raise InputError(message("adapters", got="none", expected="at least one", fix="pass one adapter or more"))
    if choice.max_error is not None:
        limit = choice.max_error if limit is None else min(limit, choice.max_error)
    shapes = shapes_of(adapters.values(), {name: x.shape for name, x in state.layers.items()})
    same = copies(state, adapters)
    fresh = {task: adapter for task, adapter in adapters.items() if task not in same}
    if fresh:
        merged = _learnt(state, fresh, shapes, choice, limit, on_limit, path, seed)
    else:
        merged = ShareState(state.tasks, {name: _idle(layer, 0) for name, layer in state.layers.items()})
    if same:
        merged = _with_copies(merged, same)
    return _reordered(merged, [*state.tasks, *adapters])


def remerge(state: ShareState, choice: Choice, *, limit: float | None = None, seed: int = 0) -> ShareState:
    """A merge of nothing: bases chosen anew for the tasks that are there, which may make them smaller.

    Raises:
        LimitError: `limit` (or the choice's `max_error`) is passed even with every direction kept.
    """
    if not state.layers:
        return state
    shapes = {name: layer.shape for name, layer in state.layers.items()}
    if choice.max_error is not None:
        limit = choice.max_error if limit is None else min(limit, choice.max_error)
    return _learnt(state, {}, shapes, choice, limit, "grow", "incremental", seed)


def _learnt(
    state: ShareState,
    adapters: Mapping[str, Adapter],
    shapes: Mapping[str, tuple[int, int]],
    choice: Choice,
    limit: float | None,
    on_limit: str,
    path: Path,
    seed: int,
) -> ShareState:
    layers = {name: state.layers.get(name) or _unknown(shape, len(state.tasks)) for name, shape in shapes.items()}
    joint = joint_spectra(layers, list(adapters.values()), path, None if limit is not None else choice.k, seed)
    names = (*state.tasks, *adapters)
    idle = {name: _idle(layer, len(adapters)) for name, layer in layers.items() if name not in joint}
    if choice.max_error is not None and limit is not None:
        floors = dict.fromkeys(joint, (0, 0))
        aim = _aim(state, len(adapters), limit, "grow")
        return _ordered(_within(joint, idle, names, floors, limit, aim, "grow"), shapes)
    ks = _chosen(joint, choice, keep=bool(adapters) and choice.k is None)
    merged = ShareState(names, {**idle, **apply(joint, ks)})
    if limit is not None:
        aim = _aim(state, len(adapters), limit, on_limit)
        if np.any(relative(merged, "bound") > aim):
            merged = _within(joint, idle, names, ks, limit, aim, on_limit)
    return _ordered(merged, shapes)


def _unknown(shape: tuple[int, int], tasks: int) -> Subspace:
    """A target that no task has had an adapter on."""
    empty = [np.zeros((d, 0), np.float32) for d in shape]
    layer = without_tasks(shape, "columns", empty[0], empty[1], 1)
    return replace(layer, **empty_slots(layer, tasks)._asdict())


def _idle(layer: Subspace, new: int) -> Subspace:
    """A target that no new task touches: nothing changes, the new tasks have no adapter there."""
    quiet = replace(layer, change=np.zeros_like(layer.change))
    return replace(quiet, **join([slots_of(quiet), empty_slots(layer, new)])._asdict())


def _chosen(joint: Mapping[str, Joint], choice: Choice, *, keep: bool) -> dict[str, tuple[int, int]]:
    """(k, k') of every target, with `keep` no smaller than it was; energy discarded earlier counts as lost."""
    out = {}
    for name, x in joint.items():
        pair = []
        for spectrum, total, old in zip((x.a, x.b), energies(x), x.old.num_basis, strict=True):
            k = choose(choice, spectrum, total)
            pair.append(min(max(k, old), spectrum.rank) if keep else k)
        out[name] = (pair[0], pair[1])
    return out


def _within(
    joint: Mapping[str, Joint],
    idle: Mapping[str, Subspace],
    names: tuple[str, ...],
    floors: Mapping[str, tuple[int, int]],
    limit: float,
    aim: np.ndarray,
    on_limit: str,
) -> ShareState:
    """The merge with the fewest columns, at least `floors`, that keeps each task's bound within its aim.

    Where no cut does, with all columns, if that keeps every bound within `limit`.
    """
    ladders = {}
    for name, x in joint.items():
        ea, eb = energies(x)
        ladders[name] = Ladder(rungs(x.a, ea, floors[name][0]), rungs(x.b, eb, floors[name][1]))
    full = apply(joint, {n: (x.a.rank, x.b.rank) for n, x in joint.items()})
    everything = ShareState(names, {**idle, **full})
    norms = np.sqrt(np.sum([x.norm**2 for x in everything.layers.values()], axis=0))
    best = relative(everything, "bound")
    if np.any(best > limit):
        worst = int(np.argmax(best - limit))
        got = f"{best[worst]:.3g} for task {names[worst]!r} even at full rank"
        fix = "allow a larger error, or learn the set anew from its adapters"
        raise LimitError(message("error limit", got=got, expected=f"at most {limit:.3g}", fix=fix))
    squares = np.zeros((len(names), len(TOLERANCES)))
    for name, layer in everything.layers.items():
        if name not in full:
            squares += (layer.bound**2)[:, None]
            continue
        if layer.geometry == "columns":
            curve = squared_errors(layer.coeff_a, layer.coeff_b, ladders[name])
        else:
            curve = flat_curve(layer, ladders[name])
        squares += (layer.bound[:, None] + np.sqrt(curve)) ** 2
    rung = first_rung(squares, (norms * aim) ** 2)
    # the curves leave out rounding: the first rung whose measured bound holds is taken, full rank being the last resort
    merged, needed = everything, max((max(x.a.rank, x.b.rank) for x in joint.values()), default=0)
    for step in range(len(TOLERANCES) - 1 if rung is None else rung, len(TOLERANCES)):
        ks = {name: (int(x.a[step]), int(x.b[step])) for name, x in ladders.items()}
        candidate = ShareState(names, {**idle, **apply(joint, ks)})
        if np.all(relative(candidate, "bound") <= aim):
            merged, needed = candidate, widest(ladders, step)
            break
    if on_limit == "refuse":
        got, fix = f"k up to {max((max(k) for k in floors.values()), default=0)}", "allow growth, or a larger error"
        raise LimitError(message("error limit", got=got, expected=f"k up to {needed} for {limit:.3g}", fix=fix))
    return merged


def _aim(state: ShareState, new: int, limit: float, on_limit: str) -> np.ndarray:
    """What each task's bound is held to: where k may grow, with some of the limit left over for later merges.

    A task of which less is left already, as when the limit was another one, gives half of that.
    """
    if on_limit != "grow":
        return np.full(len(state.tasks) + new, limit)
    bounds = relative(state, "bound")
    old = np.minimum(np.maximum(limit * (1 - RESERVE), (bounds + limit) / 2), limit)
    return np.concatenate([old, np.full(new, limit * (1 - RESERVE))])


def _with_copies(state: ShareState, same: Mapping[str, tuple[str, Mapping[str, float]]]) -> ShareState:
    """Appends tasks that equal learnt ones: the same coefficients; their error is the measured distance."""
    layers = dict(state.layers)
    for source, distance in same.values():
        t = state.tasks.index(source)
        for name, layer in layers.items():
            slots = slots_of(layer)
            row = Slots(*(x[t : t + 1] for x in slots))
            error = np.array([distance.get(name, 0.0)])
            # what the copied task lost in this very merge is lost to the copy as well
            row = row._replace(change=error, bound=error + row.change)
            layers[name] = replace(layer, **join([slots, row])._asdict())
    return ShareState((*state.tasks, *same), layers)


def _ordered(state: ShareState, shapes: Mapping[str, object]) -> ShareState:
    return ShareState(state.tasks, {name: state.layers[name] for name in shapes})


def _reordered(state: ShareState, order: Sequence[str]) -> ShareState:
    """The same tasks in the order they were given."""
    if list(state.tasks) == list(order):
        return state
    index = np.array([state.tasks.index(name) for name in order])
    layers = {
        name: replace(layer, **{f: x[index] for f, x in slots_of(layer)._asdict().items()})
        for name, layer in state.layers.items()
    }
    return ShareState(tuple(order), layers)
