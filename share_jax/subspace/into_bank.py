"""Into a bank of tasks: adapters that were learnt elsewhere, and the tasks of a subspace."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.adapters.arithmetic import cut_to
from share_jax.adapters.factors import Adapter, Factors
from share_jax.bank.bank import TaskBank, with_tasks
from share_jax.errors import InputError, TargetError, message
from share_jax.layers.kernel_trees import as_tree, target_names
from share_jax.layers.targets import Target
from share_jax.parameterizations.from_factors import FromFactors
from share_jax.parameterizations.share import Share
from share_jax.subspace.error_bounds import relative_distance, update_distance, update_norm
from share_jax.subspace.from_bank import by_layer, kernel_sizes, slot_adapter
from share_jax.subspace.initialization import initialize
from share_jax.subspace.projection import append, empty_slots, project, slots_of
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.serving import shared_leaves, task_leaves
from share_jax.subspace.share_bank import ShareBank, with_record
from share_jax.subspace.state import Report, ShareState, Subspace, factors_of, report
from share_jax.trees import flat, nested
from share_jax.typing import Tree

Heads = Mapping[str, Mapping[str, np.ndarray]]
"""Each task's own parameters by path."""


class WithTasks(NamedTuple):
    """A bank with tasks that were learnt elsewhere, and what each of them lost on the way in.

    Example:
        >>> from share_jax.subspace import Report
        >>> taken = WithTasks(TaskBank({}, {}, ("cola",)), {"cola": Report(0.0, 0.01)})  # as with_adapters returns it
        >>> bank, reports = taken
        >>> bank.names, reports["cola"].error_bound
        (('cola',), 0.01)
    """

    bank: TaskBank
    reports: dict[str, Report]


def with_adapters(bank: TaskBank, adapted: Any, adapters: Mapping[str, Adapter], heads: Heads) -> WithTasks:
    """The bank with adapters as further tasks; the learnt ones keep their bits.

    `SeparateLoRA` takes any pair whose rank it has room for. `SharedA` takes those whose A is the bank's, or whose
    update its columns give. `Share` projects them on its bases, which loses what the report says; a `ShareBank` stays
    one and keeps what is known of the losses of its tasks. In a bank without tasks, what is shared comes from the
    adapters.

    Args:
        bank: what has been learnt.
        adapted: the model that it is of.
        adapters: new tasks by name, each by the names of `target_names`; a target that one lacks is not changed by it.
        heads: each new task's heads by path, all of them.

    Returns:
        The bank, and for each task the error of its update, measured, and a bound on it, relative to its norm.

    Raises:
        TaskError: a name is taken.
        TargetError: an adapter has a target that the model lacks, or of another shape; a head is missing or unknown.
        InputError: the method cannot hold an adapter; the message says what can.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=share_jax.SeparateLoRA(rank=2))
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> cola = {"kernel": Factors(np.ones((4, 2)), np.ones((2, 3)), scale=0.5)}
        >>> bank, reports = with_adapters(TaskBank(trees["shared"], trees["tasks"]), adapted, {"cola": cola}, heads={})
        >>> bank.names, reports["cola"].error_bound < 1e-6
        (('cola',), True)
    """
    sizes = kernel_sizes(adapted.targets)
    for task, adapter in adapters.items():
        _check_targets(task, adapter, sizes)
        _check_heads(task, heads.get(task, {}), bank, adapted.heads)
    if isinstance(adapted.method, Share):
        return _of_state(bank, adapted, _projected(bank, adapted, adapters), adapters, heads)
    if isinstance(adapted.method, FromFactors):
        shared, slots = _taken(bank, adapted.method, adapted.targets, adapters)
        return _joined(bank, adapted, shared, slots, heads, adapters)
    expected, fix = "one that takes adapters over", "adapt with SeparateLoRA, SharedA or Share"
    raise InputError(message("method", got=repr(adapted.method), expected=expected, fix=fix))


def with_state(bank: TaskBank, adapted: Any, state: ShareState, heads: Heads) -> WithTasks:
    """The bank with a state's tasks: of `Share` on the state's own bases, to the bit; else as `with_adapters`.

    Args:
        bank: one without tasks, or, of `Share`, one on the same bases.
        adapted: the model that it is of, with `Share(num_basis, pseudo_rank)` at least as wide as the state.
        state: the tasks, in the columns geometry, by the names of `target_names`.
        heads: each task's heads by path, all of them.

    Raises:
        InputError: the bank has tasks on other bases, or fewer columns than the state.
        TargetError, TaskError: see `with_adapters`.

    Example:
        >>> import flax.linen as nn
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=Share(num_basis=2, pseudo_rank=1))
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> state = initialize({"cola": {"kernel": Factors(np.ones((4, 1)), np.ones((1, 3)))}})
        >>> bank, reports = with_state(TaskBank(trees["shared"], trees["tasks"]), adapted, state, heads={})
        >>> bank.names, reports["cola"].error_bound < 1e-5
        (('cola',), True)
    """
    method = adapted.method
    if not isinstance(method, Share):
        return with_adapters(bank, adapted, {task: factors_of(state, task) for task in state.tasks}, heads)
    _check_targets("of the state", state.layers, kernel_sizes(adapted.targets))
    for task in state.tasks:
        _check_heads(task, heads.get(task, {}), bank, adapted.heads)
    shared = shared_of(bank, adapted, state)
    mine, theirs = flat(bank.shared), flat(shared)
    if bank.names and not all(np.array_equal(np.asarray(mine[path]), leaf) for path, leaf in theirs.items()):
        fix = "start from a bank without tasks, or take the adapters one by one, which projects them"
        raise InputError(message("bank", got="tasks on other bases", expected="the state's bases", fix=fix))
    adapters = {task: factors_of(state, task) for task in state.tasks}
    return _of_state(bank, adapted, _after(with_record(bank, adapted).state, state), adapters, heads)


def bank_of_state(model: Any, bank: TaskBank, state: ShareState, heads: Sequence[Mapping[str, Any]]) -> ShareBank:
    """The bank that serves a subspace.

    Args:
        model: adapted with `Share`.
        bank: with room for the state's tasks; its further slots stay as they are.
        state: the subspace, in the columns geometry.
        heads: of every task, by path.

    Raises:
        InputError: if the state has more columns than the model.
    """
    if not state.tasks:
        return ShareBank(bank.shared, bank.tasks)
    slots = {task: nested({**slot_of(model, state, t), **heads[t]}) for t, task in enumerate(state.tasks)}
    shared = jax.tree.map(jnp.asarray, shared_of(bank, model, state))
    served = with_tasks(TaskBank(bank.shared, bank.tasks), shared, slots)
    return ShareBank(served.shared, served.tasks, served.names, state)


def _check_targets(task: str, adapter: Mapping[str, Factors | Subspace], sizes: Mapping[str, tuple[int, int]]) -> None:
    for name, factors in adapter.items():
        if factors.shape != sizes.get(name):
            expected = f"{sizes[name]}" if name in sizes else f"one of the {len(sizes)} targets"
            got, fix = f"{name} {factors.shape}", "adapt that kernel of the same model"
            raise TargetError(message(f"adapter of task {task!r}", got=got, expected=expected, fix=fix))


def _check_heads(task: str, own: Mapping[str, np.ndarray], bank: TaskBank, heads: Collection[str]) -> None:
    stacks = flat(bank.tasks)
    want = {path: tuple(stacks[path].shape[1:]) for path in heads}
    got = {path: tuple(np.shape(array)) for path, array in own.items()}
    for path in sorted(want.keys() | got.keys()):
        if want.get(path) != got.get(path):
            what, fix = f"head {path} of task {task!r}", "pass the heads that the model was adapted with"
            raise TargetError(message(what, got=got.get(path, "none"), expected=want.get(path, "none"), fix=fix))


def _taken(
    bank: TaskBank, method: FromFactors, targets: Sequence[Target], adapters: Mapping[str, Adapter]
) -> tuple[Tree, dict[str, dict[str, np.ndarray]]]:
    """The shared tree and every new slot's leaves by path, each adapter's factors as they are."""
    own: dict[str, Any] = {name: leaves for name, leaves, _ in by_layer(targets, bank.shared, {})}
    if not bank.names:
        pairs = {name: [(x[name].lora_a, x[name].lora_b) for x in adapters.values() if name in x] for name in own}
        own = {name: method.shared_from(pairs[name], own[name], name) if pairs[name] else own[name] for name in own}
    sizes = kernel_sizes(targets)

    def slot(task: str) -> Callable[[str], Mapping[str, Any]]:
        def leaves(name: str) -> Mapping[str, Any]:
            none = Factors(np.zeros((sizes[name][0], 1), np.float32), np.zeros((1, sizes[name][1]), np.float32))
            x = adapters[task].get(name, none)
            what = f"task {task!r}, {name}"
            return method.slot_from(own[name], x.lora_a, x.lora_b, float(x.scale), what)

        return leaves

    shared = bank.shared if bank.names else nested({**flat(bank.shared), **_stacked(targets, own.__getitem__)})
    return shared, {task: _stacked(targets, slot(task)) for task in adapters}


def _projected(bank: TaskBank, adapted: Any, adapters: Mapping[str, Adapter]) -> ShareState:
    """The state of a `Share` bank with adapters on its bases, or on their own where it has no tasks."""
    method = adapted.method
    narrow = {task: cut_to(adapter, method.pseudo_rank) for task, adapter in adapters.items()}
    if bank.names:
        state = project(with_record(bank, adapted).state, narrow)
    else:
        state = initialize(narrow, Choice(k=method.num_basis))
    for task in adapters:
        if narrow[task] is not adapters[task]:
            state = _with_cut(state, task, adapters[task], narrow[task])
    return state


def _with_cut(state: ShareState, task: str, whole: Adapter, narrow: Adapter) -> ShareState:
    """The state with what a task has lost measured against the whole adapter, of which `narrow` is a cut."""
    index, kept = state.index(task), factors_of(state, task)
    cut, norm = update_distance(whole, narrow), update_norm(whole)
    layers = dict(state.layers)
    for name in whole:
        layer = layers[name]
        change = update_distance({name: whole[name]}, {name: kept[name]} if name in kept else {})[name]
        values = {"norm": norm[name], "change": change, "bound": max(layer.bound[index] + cut[name], change)}
        vectors = {field: np.array(getattr(layer, field)) for field in values}
        for field, value in values.items():
            vectors[field][index] = value
        layers[name] = replace(layer, **vectors)
    return ShareState(state.tasks, layers)


def _after(known: ShareState, state: ShareState) -> ShareState:
    """A state's tasks behind those of another on the same bases."""
    if not known.tasks:
        return state
    more = {
        name: [slots_of(state.layers[name]) if name in state.layers else empty_slots(layer, len(state.tasks))]
        for name, layer in known.layers.items()
    }
    return ShareState((*known.tasks, *state.tasks), append(known.layers, more))


def shared_of(bank: TaskBank, adapted: Any, state: ShareState) -> Tree:
    """The shared tree of a `Share` bank on the state's bases; a target that the state lacks keeps the bank's."""
    own = {name: leaves for name, leaves, _ in by_layer(adapted.targets, bank.shared, {})}
    served = {name: shared_leaves(layer, adapted.method.num_basis) for name, layer in state.layers.items()}
    return nested({**flat(bank.shared), **_stacked(adapted.targets, {**own, **served}.__getitem__)})


def slot_of(adapted: Any, state: ShareState, index: int) -> dict[str, np.ndarray]:
    """A task's coefficients by path, zeros on a target that the state lacks."""
    sizes = adapted.method.num_basis, adapted.method.pseudo_rank
    none = {name: np.zeros(sizes, np.float32) for name in ("coeff_a", "coeff_b")}

    def leaves(name: str) -> Mapping[str, Any]:
        return task_leaves(state.layers[name], index, *sizes) if name in state.layers else none

    return _stacked(adapted.targets, leaves)


def _stacked(targets: Sequence[Target], of: Callable[[str], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Leaves by path of what `of` gives for every name, those of stacked layers along a leading axis."""
    tree = as_tree(targets, {name: of(name) for target in targets for name in target_names(target)})
    return {path: np.asarray(leaf) for path, leaf in flat(tree).items()}


def _of_state(
    bank: TaskBank, adapted: Any, state: ShareState, adapters: Mapping[str, Adapter], heads: Heads
) -> WithTasks:
    """The bank with the new tasks of a state; a `ShareBank` keeps the state as its record."""
    shared = bank.shared if bank.names else shared_of(bank, adapted, state)
    slots = {task: slot_of(adapted, state, state.index(task)) for task in adapters}
    joined, errors = _joined(bank, adapted, shared, slots, heads, adapters)
    proven = report(state)
    reports = {
        task: replace(found, error_bound=max(found.relative_change, proven[task].error_bound))
        for task, found in errors.items()
    }
    if isinstance(bank, ShareBank):
        joined = ShareBank(joined.shared, joined.tasks, joined.names, state)
    return WithTasks(joined, reports)


def _joined(
    bank: TaskBank,
    adapted: Any,
    shared: Tree,
    slots: Mapping[str, Mapping[str, np.ndarray]],
    heads: Heads,
    adapters: Mapping[str, Adapter],
) -> WithTasks:
    trees = {task: nested({**slot, **heads.get(task, {})}) for task, slot in slots.items()}
    reports = {}
    for task, tree in trees.items():
        error = relative_distance(adapters[task], slot_adapter(adapted.method, adapted.targets, shared, tree))
        reports[task] = Report(error, error)
    return WithTasks(with_tasks(bank, jax.tree.map(jnp.asarray, shared), trees), reports)
