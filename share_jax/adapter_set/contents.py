"""One version of a set, complete before any of it is written: sources and a state in, a record to write out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from share_jax.adapter_set.compression_loss import CompressionLoss, check_limit, task_errors
from share_jax.adapter_set.encoding import drop_tasks
from share_jax.adapter_set.int8_gauge import pivoted_state
from share_jax.adapter_set.manifest import Manifest, Settings, TaskEntry
from share_jax.formats.adapter_file import Source
from share_jax.formats.base_model import stored_config
from share_jax.formats.peft import DTYPES
from share_jax.storage.safetensors_file import numpy_dtype
from share_jax.subspace.quantize import StoredLayer, store
from share_jax.subspace.removal import remove
from share_jax.subspace.state import ShareState, relative


@dataclass(frozen=True)
class SetContents:
    """What a set holds."""

    settings: Settings
    tasks: Mapping[str, TaskEntry]  # in the state's order
    configs: Mapping[str, Mapping[str, Any]]  # by the ids in the tasks' entries
    state: ShareState  # as reading the stored arrays gives it back
    stored: Mapping[str, StoredLayer]
    sources: tuple[Source, ...]  # those whose uncompressed tensors are written with it
    extras: Mapping[str, str]  # task -> file of its uncompressed tensors, of those that are written already
    forms: Mapping[str, str]  # layer -> its form in files, where it is no pair of matrices
    rounding: np.ndarray | None = None  # (T,) what storing moved, relative to each update; None where it moved nothing


def contents_of(
    settings: Settings, state: ShareState, sources: Sequence[Source] = (), old: Manifest | None = None
) -> SetContents:
    """The contents of a set with the state's tasks.

    Args:
        settings: how the set compresses.
        state: bases and coefficients of all tasks, before they are stored.
        sources: the originals of the new tasks.
        old: what the set held before; every task that is no new one is its.

    Raises:
        LimitError: what is stored is past the limit of the set.
    """
    stored, rounded = store(pivoted_state(state) if settings.storage == "int8" else state, settings.storage)
    before = old.tasks if old is not None else {}
    errors = task_errors(settings, state, rounded, before, sources)
    check_limit(settings, errors, rounded)
    configs = dict(old.configs) if old is not None else {}
    ids = {_key(config): name for name, config in configs.items()}
    tasks = {name: replace(entry, **asdict(errors[name])) for name, entry in before.items()}
    for source in sources:
        config = stored_config(source.config)
        name = ids.setdefault(_key(config), next(free for n in count() if (free := f"c{n}") not in configs))
        configs[name] = config
        tasks[source.name] = _entry(source, name, errors[source.name])
    forms = dict(old.forms) if old is not None else {}
    for source in sources:
        forms.update(source.forms)
    extras = old.extras if old is not None else {}
    told = _with_changes(rounded, state)
    rounding = relative(rounded, "change")
    return SetContents(settings, tasks, configs, told, stored, tuple(sources), extras, forms, rounding)


def _with_changes(stored: ShareState, built: ShareState) -> ShareState:
    """The stored state, whose tasks' last change is that of the merge and of storing it together."""
    layers = {
        name: replace(layer, change=np.hypot(built.layers[name].change, layer.change))
        for name, layer in stored.layers.items()
    }
    return replace(stored, layers=layers)


def without_tasks(
    old: Manifest, state: ShareState, stored: Mapping[str, StoredLayer], gone: Sequence[str]
) -> SetContents:
    """The contents without some tasks; no byte that is stored of the others changes.

    Args:
        old: what the set holds.
        state: its state.
        stored: its arrays.
        gone: the tasks that leave; one must stay.
    """
    places = [state.index(task) for task in gone]
    for task in gone:
        state = remove(state, task)
    tasks = {name: entry for name, entry in old.tasks.items() if name not in gone}
    used = {entry.config for entry in tasks.values()}
    return SetContents(
        old.settings(),
        tasks,
        {name: config for name, config in old.configs.items() if name in used},
        state,
        drop_tasks({name: stored[name] for name in state.layers}, places, len(old.tasks)),
        (),
        {name: file for name, file in old.extras.items() if name in tasks},
        {name: form for name, form in old.forms.items() if name in state.layers},
    )


def _entry(source: Source, config: str, error: CompressionLoss) -> TaskEntry:
    dtypes = {layer.dtype for layer in source.layers.values()}
    dtype = DTYPES[dtypes.pop()] if len(dtypes) == 1 else "f32"
    lora = sum(x.rank * (x.d_in + x.d_out) * numpy_dtype(x.dtype).itemsize for x in source.layers.values())
    return TaskEntry(config, source.metadata, dtype, source.bytes_in, lora, **asdict(error))


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)
