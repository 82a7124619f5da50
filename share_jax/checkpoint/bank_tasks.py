"""The tasks of a bank on disk as those of adapter files, without the model: what the manifest says is enough."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from share_jax.checkpoint import arrays
from share_jax.checkpoint.checkpoint import Checkpoint, open_checkpoint
from share_jax.checkpoint.manifest import FILE
from share_jax.checkpoint.state_leaves import holds_state, saved_state
from share_jax.errors import FormatError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.bank_tasks import check_folder_names, task_source
from share_jax.formats.flax_names import table_for
from share_jax.layers.targets import Target
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.built_in import method_of
from share_jax.storage.steady import steady
from share_jax.storage.untrusted import shown
from share_jax.subspace.from_bank import kernel_sizes, slot_adapter
from share_jax.subspace.state import factors_of
from share_jax.trees import at, flat, keys_of
from share_jax.typing import Tree


def open_bank(folder: str | os.PathLike[str], names: Mapping[str, str] | None = None) -> list[Source]:
    """Every task of a bank that `save_bank` or `save_share_task` wrote, with its heads.

    Factors are as they were learnt; of one evolving subspace as they are served.

    Args:
        folder: the bank's.
        names: PyTorch's name of every module by its path; paths with dots when None.

    Raises:
        FormatError: it is no bank, is damaged, holds no tasks, or is one of a module of one's own.
        TargetError: a name is missing or of no module.
    """
    return steady(Path(folder, FILE), lambda: _tasks_of(Path(folder), names))


def _tasks_of(folder: Path, names: Mapping[str, str] | None) -> list[Source]:
    store = open_checkpoint(folder)
    identity, what = store.manifest.identity, f"bank {shown(folder.name)}"
    method = method_of(identity.method, what)
    if not store.names:
        raise FormatError(message(what, got="no tasks", expected="at least one", fix="learn a task first"))
    check_folder_names(store.names)
    record = store.manifest.shared
    if holds_state(store):
        state, heads = saved_state(store)
        sizes = {name: layer.shape for name, layer in state.layers.items()}
        table = table_for(sizes, {path: np.shape(head) for path, head in heads[0].items()}, names)
        each = zip(store.names, heads, strict=True)
        return [task_source(n, factors_of(state, n), own, table, None, _share_of(store, n)) for n, own in each]
    shared = _read(store, record, "the shared tree") if record is not None else {}
    out: list[Source] = []
    for name in store.names:
        slot = _read(store, store.record(name), f"task {name!r}")
        leaves = flat(slot)
        targets = [_target(path, method, shared, slot, what) for path in identity.targets]
        heads = {path: np.asarray(leaves[path]) for path in identity.heads}
        table = table_for(kernel_sizes(targets), {path: head.shape for path, head in heads.items()}, names)
        adapter = slot_adapter(method, targets, shared, slot)
        out.append(task_source(name, adapter, heads, table, None, _share_of(store, name)))
    return out


def _read(store: Checkpoint, record: arrays.Record, what: str) -> dict[str, Any]:
    return arrays.read(store.root, record, arrays.like_of(record), what)


def _share_of(store: Checkpoint, name: str) -> int:
    """Bytes of a task, with its part of what all share."""
    record = store.manifest.shared
    return _bytes(store, store.record(name)) + (_bytes(store, record) // len(store.names) if record else 0)


def _bytes(store: Checkpoint, record: arrays.Record) -> int:
    return sum(os.stat(store.root / record["path"] / name).st_size for name in record["files"])


def _target(path: str, method: Parameterization, shared: Tree, slot: Tree, what: str) -> Target:
    """A target whose kernel nobody has here: its sizes are those of the factors, its layers those of the leaves."""
    want, keys = method.leaves(1, 1), keys_of(path)
    alone = want.keys() & (at(shared, keys) | at(slot, keys)).keys()  # of a module with several targets
    place = keys if alone else keys[:-1]
    own, leaves = at(shared, place), at(slot, place)
    have = {**own, **leaves}
    more = {have[name].ndim - len(spec.axes) for name, spec in want.items() if name in have}
    if not want.keys() <= have.keys() or len(more) != 1 or not more <= {0, 1}:
        got = {name: tuple(leaf.shape) for name, leaf in have.items()}
        fix = "save the bank with share_jax.save_bank"
        raise FormatError(message(f"leaves of {path} in {what}", got=got, expected=sorted(want), fix=fix))
    stacked = have[next(iter(want))].shape[0] if more == {1} else None
    one = jax.tree.map(lambda x: x[0], (own, leaves)) if stacked is not None else (own, leaves)
    a, b = jax.eval_shape(method.factors, *one)
    sizes = (a.shape[0], b.shape[1])
    return Target(path, keys[:-1], type(method).__name__, sizes, 1, stacked, own_leaves=bool(alone))
