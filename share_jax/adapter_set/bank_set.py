"""A bank as a compressed set, and the tasks of a set as those of a bank."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from share_jax.adapter_set.contents import SetContents, contents_of
from share_jax.adapter_set.manifest import Settings, is_whole_set
from share_jax.adapter_set.store import AdapterSet, new_set, read_set
from share_jax.bank.bank import TaskBank
from share_jax.errors import InputError, message
from share_jax.formats.bank_tasks import bank_sources, bank_table, check_linear, open_heads
from share_jax.formats.flax_names import Names, from_modules, to_modules
from share_jax.parameterizations.share import Share
from share_jax.storage.untrusted import shown
from share_jax.subspace.from_bank import bank_state, kernel_sizes
from share_jax.subspace.into_bank import WithTasks, with_adapters, with_state
from share_jax.subspace.share_bank import ShareBank
from share_jax.subspace.state import ShareState, factors_of, report


def export_set(
    bank: TaskBank,
    adapted: Any,
    folder: str | os.PathLike[str],
    names: Names = None,
    *,
    base_model: str | None = None,
    storage: str = "f32",
    overwrite: bool = False,
) -> AdapterSet:
    """Writes a bank as a compressed set, which `share-jax` reads: a `Share` bank's own bases and coefficients.

    Of other methods the bases hold all that the factors span; `share-jax recompress` makes them smaller. What merges of
    a `ShareLearner` have cost its tasks stays known: their proven bounds are the set's.

    Args:
        bank: the learnt tasks.
        adapted: the adapted model that learnt them.
        folder: where; its parent must be there.
        names: as for `formats.bank_tasks.export_peft`.
        base_model: the name of the model that was adapted.
        storage: "f32", "bf16" or "int8".
        overwrite: whether a set that is there may be replaced.

    Raises:
        InputError: the bank has no tasks, or something is there already.
        TargetError: a kernel or head has no name, or is nothing that PEFT holds.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import share_jax
        >>> model, x = nn.Sequential([nn.Dense(3)]), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets=".*/kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> bank = TaskBank(trees["shared"], trees["tasks"], ("cola", "rte"))
        >>> export_set(bank, adapted, "exported").state.tasks
        ('cola', 'rte')
    """
    check_linear(adapted)
    sources = bank_sources(bank, adapted, names, base_model=base_model)
    out = Path(os.path.abspath(folder))
    if os.path.lexists(out) and not (overwrite and is_whole_set(out)):
        expected, fix = "a new one", "name another, or pass overwrite=True where a set is to be replaced"
        raise InputError(message(f"folder {shown(folder)}", got="one that exists", expected=expected, fix=fix))
    record = bank.state if isinstance(bank, ShareBank) else None
    state = bank_state(bank, adapted, record)
    state = ShareState(state.tasks, to_modules(bank_table(adapted, bank, names), state.layers))
    contents = contents_of(Settings(base_model, storage, "columns", {}, None, None), state, sources)
    if record is not None:
        contents = _as_proven(contents, record.tasks[:-1])
    with new_set(out) as writer:
        writer.write(contents)
    return read_set(out)


def _as_proven(contents: SetContents, merged: Sequence[str]) -> SetContents:
    """The contents with the bounds of tasks that merges have moved as their errors: what they were is gone."""
    bounds = report(contents.state)
    moved = {
        name: replace(contents.tasks[name], relative_error=bounds[name].error_bound, measured=False) for name in merged
    }
    return replace(contents, tasks={**contents.tasks, **moved})


def import_set(
    folder: str | os.PathLike[str],
    adapted: Any,
    bank: TaskBank,
    names: Names = None,
    *,
    tasks: Sequence[str] | None = None,
) -> WithTasks:
    """The bank with tasks of a compressed set as further tasks; learnt tasks keep their bits.

    A `Share` bank without tasks takes all of a set on the set's own bases, if it has as many columns. Otherwise each
    task comes in as an adapter.

    Args:
        folder: the set's.
        adapted: the adapted model; what the set adapts must be its targets, and what it kept whole its heads.
        bank: what has been learnt.
        names: as for `formats.bank_tasks.export_peft`.
        tasks: which; all when None.

    Returns:
        The bank, and each task's error and its bound on the way from the set; see `subspace.into_bank.with_adapters`.

    Raises:
        FormatError: the folder is no set, or is damaged.
        TaskError: a task is not in the set, or its name is taken.
        TargetError, InputError: see `formats.bank_tasks.import_peft`.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import share_jax
        >>> model, x = nn.Sequential([nn.Dense(3)]), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets=".*/kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> done = export_set(TaskBank(trees["shared"], trees["tasks"], ("cola", "rte")), adapted, "exported")
        >>> bank, reports = import_set("exported", adapted, TaskBank(trees["shared"], trees["tasks"]), tasks=["rte"])
        >>> bank.names
        ('rte',)
    """
    done, table = read_set(folder), bank_table(adapted, bank, names)
    chosen, sizes = tuple(done.state.tasks if tasks is None else tasks), kernel_sizes(adapted.targets)
    heads = {task: open_heads(done.extras(task), table, adapted.heads, f"task {shown(task)}") for task in chosen}
    state = ShareState(done.state.tasks, from_modules(table, done.state.layers, sizes))
    if tasks is None and not bank.names and isinstance(adapted.method, Share) and _fits(state, adapted.method):
        return with_state(bank, adapted, state, heads)
    return with_adapters(bank, adapted, {task: factors_of(state, task) for task in chosen}, heads)


def _fits(state: ShareState, method: Share) -> bool:
    layers = state.layers.values()
    columns = all(layer.geometry == "columns" and max(layer.num_basis) <= method.num_basis for layer in layers)
    return columns and all(layer.pseudo_rank <= method.pseudo_rank for layer in layers)
