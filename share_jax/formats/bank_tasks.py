"""The tasks of a bank as the tasks that adapter files hold, and back: PEFT folders, one per task."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.adapters.factors import Adapter, nbytes
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError, TargetError, message
from share_jax.formats.adapter_file import Layer, Source
from share_jax.formats.export import new_config
from share_jax.formats.flax_names import (
    Names,
    Table,
    from_modules,
    from_tensors,
    table_for,
    to_modules,
    to_tensors,
)
from share_jax.formats.format import FORMATS, writer
from share_jax.formats.open import open_sources
from share_jax.formats.peft_keys import PREFIX
from share_jax.storage.safetensors_file import RawTensor, raw_of
from share_jax.storage.untrusted import check_task_name, publish, shown
from share_jax.subspace.from_bank import bank_adapters, bank_heads, kernel_sizes, slot_adapter
from share_jax.subspace.into_bank import WithTasks, with_adapters
from share_jax.trees import flat

LINEAR = ("Dense", "DenseGeneral")
"""Layers of Flax whose adapter is one of a linear module in PyTorch, too."""


def export_peft(
    bank: TaskBank,
    adapted: Any,
    folder: str | os.PathLike[str],
    names: Names = None,
    *,
    base_model: str | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Writes every task of a bank as a PEFT folder: FOLDER/TASK with its adapter, alpha and heads.

    Args:
        bank: the learnt tasks; their names become folders.
        adapted: the adapted model that learnt them.
        folder: where; made if it is not there.
        names: PyTorch's names for the model: its own table, such as `models.bert.bert_names(config, classes)`; or
            {module path: module name}; or None for paths with dots.
        base_model: `base_model_name_or_path` to write.
        overwrite: whether adapters in folders of these names may be replaced.

    Returns:
        The folder of each task.

    Raises:
        TargetError: a kernel or head has no name, or is nothing that PEFT holds.
        TaskError: a task's name is no folder's.
        InputError: the bank has no tasks; a folder is there already, or holds something else than an adapter.

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
        >>> [place.as_posix() for place in export_peft(bank, adapted, "peft", {"layers_0": "dense"}).values()]
        ['peft/cola', 'peft/rte']
    """
    sources = bank_sources(bank, adapted, names, base_model=base_model)
    check_linear(adapted)
    return write_tasks(sources, folder, overwrite)


def write_tasks(sources: Sequence[Source], folder: str | os.PathLike[str], overwrite: bool) -> dict[str, Path]:
    """Writes each task as the PEFT folder FOLDER/TASK; see `export_peft`.

    Raises:
        InputError: a folder is there already, and may not be replaced or holds something else than an adapter.
    """
    places = {source.name: Path(folder) / source.name for source in sources}
    for place in places.values():
        check_replaceable(place, overwrite)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for source in sources:
        write_peft(source, places[source.name])
    return places


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuses a place where a task's folder may not be written.

    Raises:
        InputError: there is one already, and it may not be replaced or is no adapter.
    """
    plain = folder.is_dir() and not folder.is_symlink()
    if not os.path.lexists(folder) or (plain and not any(folder.iterdir())):
        return
    what = f"folder {shown(folder)}"
    if not overwrite:
        fix = "name another folder or pass overwrite=True"
        raise InputError(message(what, got="one that exists", expected="a new one", fix=fix))
    if not plain or not any(each.is_whole(folder) for each in FORMATS):
        got = "a folder with content that is no adapter" if plain else "a file or a link"
        raise InputError(message(what, got=got, expected="an adapter, or nothing", fix="name another folder"))


def write_peft(source: Source, folder: Path) -> None:
    """Writes one task as a PEFT folder in one step; what is there is replaced."""
    with publish(folder) as temp:
        writer("PEFT")(temp, source.adapter(), source.config, source.extras(), source.metadata, "f32", source.forms)


def import_peft(
    folders: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    adapted: Any,
    bank: TaskBank,
    names: Names = None,
) -> WithTasks:
    """The bank with adapters' folders as further tasks, each named as its folder; learnt tasks keep their bits.

    Args:
        folders: of PEFT, or of another known format; one or several.
        adapted: the adapted model; what the folders adapt must be its targets, and what they save whole its heads.
        bank: what has been learnt, on `adapted`; an empty one from `Learner.start`, for example.
        names: as for `export_peft`.

    Returns:
        The bank; and for each new task the measured error of its update and a bound on it, relative to its norm: zero,
        or rounding, but for `Share`, which projects. See `subspace.into_bank.with_adapters`.

    Raises:
        FormatError: a folder is none of a known format, or is damaged.
        TargetError: a module or tensor has no name in the model, or is no target or head of it; a head is missing.
        TaskError: a name is taken.
        InputError: the method cannot hold an adapter; the message says what can.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import share_jax
        >>> model, x = nn.Sequential([nn.Dense(3)]), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets=".*/kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> places = export_peft(TaskBank(trees["shared"], trees["tasks"], ("cola", "rte")), adapted, "peft")
        >>> bank, reports = import_peft(places["rte"], adapted, TaskBank(trees["shared"], trees["tasks"]))
        >>> bank.names, reports["rte"].error_bound
        (('rte',), 0.0)
    """
    single = isinstance(folders, str | os.PathLike)
    return with_sources(open_sources([folders] if single else folders, bank.names), adapted, bank, names)


def with_sources(sources: Sequence[Source], adapted: Any, bank: TaskBank, names: Names = None) -> WithTasks:
    """As `import_peft`, of tasks that are open already."""
    adapters, heads = adapters_and_heads(sources, adapted, bank, names)
    return with_adapters(bank, adapted, adapters, heads)


def adapters_and_heads(
    sources: Sequence[Source], adapted: Any, bank: TaskBank, names: Names = None
) -> tuple[dict[str, Adapter], dict[str, dict[str, np.ndarray]]]:
    """Each task's adapter by the names of the model's targets, and its heads by path.

    Raises:
        TargetError, InputError: as `import_peft`.
    """
    table = bank_table(adapted, bank, names)
    adapters, heads = {}, {}
    for source in sources:
        check_plain(source)
        try:
            adapters[source.name] = from_modules(table, source.adapter(), kernel_sizes(adapted.targets))
        except TargetError as error:
            raise TargetError(f"{source.label} {error}") from error
        heads[source.name] = open_heads(source.extras(), table, adapted.heads, source.label)
    return adapters, heads


def check_plain(source: Source) -> None:
    """Refuses a task that a bank cannot hold: one with more than pairs of matrices beside its heads.

    Raises:
        InputError: it has magnitudes (DoRA) or biases of lora_B, or adapts a convolution, an embedding or experts.
    """
    kinds = {form.partition(":")[0] for form in source.forms.values()}
    got = [key for key in ("use_dora", "lora_bias") if source.config.get(key)] + sorted(kinds)
    if got:
        expected, fix = "LoRA of linear layers", "compress it instead (share-jax compress)"
        raise InputError(message(f"{source.label} for a bank", got=", ".join(got), expected=expected, fix=fix))


def open_heads(
    extras: Mapping[str, RawTensor], table: Table, heads: Collection[str], what: str
) -> dict[str, np.ndarray]:
    """A task's heads by path, of the tensors that lie beside its factors.

    Raises:
        TargetError: see `flax_names.from_tensors`.
    """
    try:
        return from_tensors(table, {name.removeprefix(PREFIX): raw.array() for name, raw in extras.items()}, heads)
    except TargetError as error:
        raise TargetError(f"{what} {error}") from error


def bank_table(adapted: Any, bank: TaskBank, names: Names) -> Table:
    """The table of what the bank's tasks own; see `flax_names.table_for`."""
    stacks = flat(bank.tasks)
    heads = {path: tuple(stacks[path].shape[1:]) for path in adapted.heads}
    return table_for(kernel_sizes(adapted.targets), heads, names)


def bank_sources(bank: TaskBank, adapted: Any, names: Names = None, *, base_model: str | None = None) -> list[Source]:
    """Every task of a bank as a task of adapter files, in memory; see `export_peft`.

    Args:
        bank: the learnt tasks.
        adapted: the adapted model that learnt them.
        names: as for `export_peft`.
        base_model: the name of the model that was adapted.

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
        >>> [(source.name, list(source.layers)) for source in bank_sources(bank, adapted)]
        [('cola', ['layers_0']), ('rte', ['layers_0'])]
    """
    if not bank.names:
        raise InputError(message("bank", got="no tasks", expected="at least one", fix="learn a task first"))
    check_folder_names(bank.names)
    table, heads = bank_table(adapted, bank, names), bank_heads(bank, adapted)
    return [
        task_source(name, adapter, heads[name], table, base_model)
        for name, adapter in bank_adapters(bank, adapted).items()
    ]


def check_folder_names(names: Iterable[str]) -> None:
    """Refuses tasks whose names no folder can have.

    Raises:
        TaskError: naming one.
    """
    for name in names:
        check_task_name(name, "write it by itself to a folder of another name: share-jax export BANK TASK -o DIR")


def bank_source(
    bank: TaskBank, adapted: Any, task: str, names: Names = None, *, base_model: str | None = None
) -> Source:
    """One task of a bank as a task of adapter files, whatever its name; see `bank_sources`.

    Raises:
        TaskError: no task has the name.
    """
    slot = read_slot(bank.tasks, bank.index(task))
    adapter = slot_adapter(adapted.method, adapted.targets, bank.shared, slot)
    return task_source(task, adapter, bank_heads(bank, adapted)[task], bank_table(adapted, bank, names), base_model)


def task_source(
    name: str,
    adapter: Adapter,
    heads: Mapping[str, np.ndarray],
    table: Table,
    base_model: str | None,
    bytes_in: int | None = None,
) -> Source:
    """One task of a bank as a task of adapter files, by PEFT's names.

    Args:
        name: the task's.
        adapter: by the names of `subspace.from_bank.target_names`.
        heads: by path.
        table: PyTorch's names.
        base_model: the name of the model that it adapts.
        bytes_in: of the files that hold it; those of its arrays when None.

    Raises:
        TargetError: a kernel or head is not in the table, or is nothing that PEFT holds.
    """
    modules, tensors = to_modules(table, adapter), to_tensors(table, heads)
    extras = {PREFIX + tensor: raw_of(array) for tensor, array in tensors.items()}
    layers = {
        module: Layer(*factors.shape, factors.rank, float(factors.scale), "F32") for module, factors in modules.items()
    }
    size = nbytes(adapter) + sum(len(raw.data) for raw in extras.values()) if bytes_in is None else bytes_in

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {m: (x.lora_a, x.lora_b) for m, x in modules.items() if chosen is None or m in chosen}

    def read_extras() -> dict[str, RawTensor]:
        return dict(extras)

    config = new_config(modules, sorted({tensor.rpartition(".")[0] for tensor in tensors}), base_model)
    return Source(
        name, f"task {shown(name)}", base_model, config, layers, {"format": "pt"}, tuple(extras),
        size, read_factors, read_extras,
    )  # fmt: skip


def check_linear(adapted: Any) -> None:
    """Refuses targets that PEFT has no linear module for, and a model that adapts heads alone.

    Raises:
        TargetError: naming one.
    """
    if not adapted.targets:
        expected, fix = "at least one: PEFT loads no heads alone", "adapt a kernel, too"
        raise TargetError(message("targets", got="none", expected=expected, fix=fix))
    for target in adapted.targets:
        if target.layer not in LINEAR:
            expected, fix = " or ".join(LINEAR), "leave it out of the targets"
            raise TargetError(message(f"target {target.path} for PEFT", got=target.layer, expected=expected, fix=fix))
