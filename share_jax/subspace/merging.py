"""New adapters into the subspace (method, phase 3), with what every old task loses measured and bounded.

With C all old coefficients side by side, the left singular vectors of [basis @ C, new] are those of [basis @ L, new]
for any L with L L.T = C C.T. Such an L has k columns however many tasks there are, so the stack has k + r at most.
Old coefficients rotate by basis_new.T @ basis_old, new ones are projections; both are least-squares optimal. Old data
are never needed.

Under a limit, bases are cut by one tolerance for all targets. A task's new bound is at most its bound at full rank plus
the cut's error, on each target (triangle inequality). We take the loosest tolerance for which this holds, then verify
the measured bounds, since the curves omit rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import shapes_of
from share_jax.annotations import Float
from share_jax.errors import InputError, LimitError, message
from share_jax.subspace.duplicates import copies
from share_jax.subspace.error_curves import (
    RESERVE,
    TOLERANCES,
    RankSchedule,
    cheapest_cut,
    flat_curve,
    ranks_by_tolerance,
    squared_errors,
)
from share_jax.subspace.initialization import without_tasks
from share_jax.subspace.joint_spectra import Joint, StackMode, apply, energies, joint_spectra
from share_jax.subspace.projection import TaskCoefficients, check_new, empty_slots, join, slots_of
from share_jax.subspace.rank_choice import Choice, choose
from share_jax.subspace.state import ShareState, Subspace, relative

Ranks = Mapping[str, tuple[int, int]]
"""(k, k') of every target."""


def merge(
    state: ShareState,
    adapters: Mapping[str, Adapter],
    choice: Choice | None = None,
    *,
    limit: float | None = None,
    on_limit: Literal["grow", "refuse"] = "grow",
    path: StackMode = "incremental",
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
        on_limit: grow k as far as needed, or refuse and say how far that is. Cuts of grown bases leave `RESERVE` of the
            limit to the rounding of later merges.
        path: the incremental stack, or the whole one (an oracle; its cost grows with the tasks).
        seed: for the randomised path of wide stacks.

    Raises:
        TaskError: a name is taken.
        InputError: shapes disagree with the set's, or there is no adapter.
        LimitError: a limit would be passed and `on_limit` is "refuse", or no k is enough. `state` is unchanged.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> cola, rte = ({"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))} for _ in range(2))
        >>> state = merge(initialize({"cola": cola}), {"rte": rte})
        >>> state.tasks, state.layers["query"].num_basis
        (('cola', 'rte'), (4, 4))
    """
    choice = choice or Choice()
    check_new(state, list(adapters))
    if not adapters:
        raise InputError(message("adapters", got="none", expected="at least one", fix="pass one adapter or more"))
    shapes = shapes_of(adapters.values(), {name: x.shape for name, x in state.layers.items()})
    same = copies(state, adapters)
    fresh = {task: adapter for task, adapter in adapters.items() if task not in same}
    if fresh:
        merged = _merge_adapters(state, fresh, shapes, choice, limit, on_limit, path, seed)
    else:
        merged = ShareState(state.tasks, {name: _untouched_target(layer, 0) for name, layer in state.layers.items()})
    if same:
        merged = _with_copies(merged, same)
    return _reordered(merged, [*state.tasks, *adapters])


def remerge(state: ShareState, choice: Choice, *, limit: float | None = None, seed: int = 0) -> ShareState:
    """A merge of nothing: bases chosen anew for the tasks that are there, which may make them smaller.

    Args:
        state: the learnt tasks.
        choice: how k is chosen.
        limit: no task's proven error, relative over its whole adapter, may pass it.
        seed: for the randomised path of wide stacks.

    Raises:
        LimitError: `limit` (or the choice's `max_error`) is passed even with every direction kept.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import initialize
        >>> rng = np.random.default_rng(0)
        >>> state = initialize({"cola": {"query": Factors(rng.normal(size=(8, 4)), rng.normal(size=(4, 6)))}})
        >>> remerge(state, Choice(k=2)).layers["query"].num_basis
        (2, 2)
    """
    if not state.layers:
        return state
    shapes = {name: layer.shape for name, layer in state.layers.items()}
    return _merge_adapters(state, {}, shapes, choice, limit, "grow", "incremental", seed)


@dataclass(frozen=True)
class _Merge:
    """A merge whose bases are not cut yet.

    Attributes:
        names: the tasks, old ones first.
        joint: the targets that change.
        untouched: the others, as they will be.
    """

    names: tuple[str, ...]
    joint: Mapping[str, Joint]
    untouched: Mapping[str, Subspace]

    def cut(self, ks: Ranks) -> ShareState:
        """The merged state with bases of `ks` columns."""
        return ShareState(self.names, {**self.untouched, **apply(self.joint, ks)})


def _merge_adapters(
    state: ShareState,
    adapters: Mapping[str, Adapter],
    shapes: Mapping[str, tuple[int, int]],
    choice: Choice,
    limit: float | None,
    on_limit: str,
    path: StackMode,
    seed: int,
) -> ShareState:
    limit = min((x for x in (limit, choice.max_error) if x is not None), default=None)
    layers = {name: state.layers.get(name) or _new_target(shape, len(state.tasks)) for name, shape in shapes.items()}
    joint = joint_spectra(layers, list(adapters.values()), path, None if limit is not None else choice.k, seed)
    untouched = {name: _untouched_target(layer, len(adapters)) for name, layer in layers.items() if name not in joint}
    merge = _Merge((*state.tasks, *adapters), joint, untouched)
    if choice.max_error is not None:  # the limit alone says how many columns are kept
        least, on_limit = dict.fromkeys(joint, (0, 0)), "grow"
    else:
        least = _chosen_ranks(joint, choice, keep=bool(adapters) and choice.k is None)
    if limit is None:
        merged = merge.cut(least)
    else:
        targets = _bound_targets(state, len(adapters), limit, on_limit)
        merged = merge.cut(least) if choice.max_error is None else None
        if merged is None or np.any(relative(merged, "bound") > targets):
            merged, needed = _cut_within(merge, least, limit, targets)
            if on_limit == "refuse":
                got, fix = f"k up to {_widest(least)}", "allow growth, or a larger error"
                raise LimitError(message("error limit", got=got, expected=f"k up to {needed} for {limit:.3g}", fix=fix))
    return ShareState(merged.tasks, {name: merged.layers[name] for name in shapes})


def _new_target(shape: tuple[int, int], tasks: int) -> Subspace:
    """A target that no task has had an adapter on."""
    empty = [np.zeros((d, 0), np.float32) for d in shape]
    layer = without_tasks(shape, "columns", empty[0], empty[1], 1)
    return replace(layer, **empty_slots(layer, tasks)._asdict())


def _untouched_target(layer: Subspace, new: int) -> Subspace:
    """A target that no new task touches: nothing changes, the new tasks have no adapter there."""
    quiet = replace(layer, change=np.zeros_like(layer.change))
    return replace(quiet, **join([slots_of(quiet), empty_slots(layer, new)])._asdict())


def _chosen_ranks(joint: Mapping[str, Joint], choice: Choice, *, keep: bool) -> dict[str, tuple[int, int]]:
    """(k, k') of every target, with `keep` no smaller than it was; energy discarded earlier counts as lost."""
    out = {}
    for name, x in joint.items():
        pair = []
        for spectrum, total, old in zip((x.a, x.b), energies(x), x.old.num_basis, strict=True):
            k = choose(choice, spectrum, total)
            pair.append(min(max(k, old), spectrum.rank) if keep else k)
        out[name] = (pair[0], pair[1])
    return out


def _cut_within(merge: _Merge, least: Ranks, limit: float, targets: Float[np.ndarray, " T"]) -> tuple[ShareState, int]:
    """The merge with the fewest columns, at least `least`, whose bounds are within `targets`; and its largest k.

    Where no cut is, the merge at full rank, if that keeps every bound within `limit`.

    Raises:
        LimitError: it does not.
    """
    full = merge.cut({name: (x.a.rank, x.b.rank) for name, x in merge.joint.items()})
    bounds = relative(full, "bound")
    if np.any(bounds > limit):
        worst = int(np.argmax(bounds - limit))
        got = f"{bounds[worst]:.3g} for task {merge.names[worst]!r} even at full rank"
        fix = "allow a larger error, or learn the set anew from its adapters"
        raise LimitError(message("error limit", got=got, expected=f"at most {limit:.3g}", fix=fix))
    schedules = {}
    for name, x in merge.joint.items():
        sides = zip((x.a, x.b), energies(x), least[name], strict=True)
        schedules[name] = RankSchedule(*(ranks_by_tolerance(*side) for side in sides))
    step, merged = cheapest_cut(
        _squared_bounds(full, schedules),
        np.sqrt(np.sum([x.norm**2 for x in full.layers.values()], axis=0)),
        targets,
        lambda step: merge.cut({name: x.at(step) for name, x in schedules.items()}),
    )
    return merged, _widest({name: x.at(step) for name, x in schedules.items()})


def _squared_bounds(full: ShareState, schedules: Mapping[str, RankSchedule]) -> Float[np.ndarray, "T G"]:
    """The square of what each task's bound is at most after the cut to every tolerance, but for rounding."""
    squares = np.zeros((len(full.tasks), len(TOLERANCES)))
    for name, layer in full.layers.items():
        if name not in schedules:
            squares += (layer.bound**2)[:, None]
            continue
        if layer.geometry == "columns":
            curve = squared_errors(layer.coeff_a, layer.coeff_b, schedules[name])
        else:
            curve = flat_curve(layer, schedules[name])
        squares += (layer.bound[:, None] + np.sqrt(curve)) ** 2
    return squares


def _widest(ks: Ranks) -> int:
    """The largest k of any side: what a refusal says."""
    return max((max(pair) for pair in ks.values()), default=0)


def _bound_targets(state: ShareState, new: int, limit: float, on_limit: str) -> Float[np.ndarray, " T"]:
    """What each task's bound is held to. Where k may grow, `RESERVE` of the limit is left to later merges.

    A task that is nearer to the limit than that, as when the limit was another one, may use half of what is left.
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
            row = TaskCoefficients(*(x[t : t + 1] for x in slots))
            error = np.array([distance.get(name, 0.0)])
            # what the copied task lost in this very merge is lost to the copy as well
            row = row._replace(change=error + row.change, bound=error + row.change)
            layers[name] = replace(layer, **join([slots, row])._asdict())
    return ShareState((*state.tasks, *same), layers)


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
