"""From sources to the state and the manifest entries of a set."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from share_jax.adapter_set.int8_gauge import balanced_state
from share_jax.adapter_set.manifest import Manifest, TaskEntry
from share_jax.formats.adapter_file import Source
from share_jax.formats.peft import DTYPES
from share_jax.formats.peft_config import portable_config
from share_jax.storage.safetensors_file import numpy_dtype

if TYPE_CHECKING:
    from share_jax.adapter_set.store import SetWriter
    from share_jax.adapters.factors import Adapter
    from share_jax.subspace.state import ShareState

GROUP_BYTES = 2**28
"""How much of the adapters is held at once where whole layers are needed."""

Report = Callable[[str, int, int | None], None]


def empty_manifest(
    base: str | None,
    storage: str,
    geometry: str,
    choice: Mapping[str, Any],
    limit: float | None,
    pseudo_rank: int | None,
) -> Manifest:
    """A manifest without tasks and files."""
    return Manifest(base, storage, geometry, choice, limit, pseudo_rank, {}, {}, {}, "", "")


def adapters_of(
    sources: Iterable[Source], pseudo_rank: int | None, modules: tuple[str, ...] | None = None
) -> "Iterator[tuple[str, Adapter]]":
    """Each source's adapter, cut to the pseudo rank."""
    from share_jax.adapters.arithmetic import balance

    for source in sources:
        adapter = source.adapter(modules)
        if pseudo_rank is not None and any(f.rank > pseudo_rank for f in adapter.values()):
            adapter = balance(adapter, rank=pseudo_rank)
        yield source.name, adapter


def build_state(sources: Sequence[Source], manifest: Manifest, progress: Report) -> "ShareState":
    """The first state: bases and coefficients of all sources, streamed from their files.

    The columns geometry holds a few adapters at a time; the flat one, which needs whole layers of all adapters at
    once, goes layer by layer.
    """
    from share_jax.subspace.flat_geometry import initialize_with
    from share_jax.subspace.initialization import initialize_stream
    from share_jax.subspace.rank_choice import Choice
    from share_jax.subspace.state import ShareState

    choice = Choice(**manifest.choice)
    if manifest.geometry == "columns":
        return initialize_stream(
            lambda: adapters_of(sources, manifest.pseudo_rank),
            choice,
            progress=lambda what, done: progress(what, done, None),
        )
    layers = {}
    groups = list(_groups(sources))
    for i, modules in enumerate(groups):
        progress("layer group", i, len(groups))
        some = dict(adapters_of(sources, manifest.pseudo_rank, modules))
        layers.update(initialize_with(some, choice, geometry=manifest.geometry).layers)
    return ShareState(tuple(source.name for source in sources), layers)


def _groups(sources: Sequence[Source]) -> Iterator[tuple[str, ...]]:
    sizes: dict[str, int] = {}
    for source in sources:
        for module, layer in source.layers.items():
            sizes[module] = sizes.get(module, 0) + 4 * layer.rank * (layer.d_in + layer.d_out)
    group: list[str] = []
    total = 0
    for module, size in sizes.items():
        if group and total + size > GROUP_BYTES:
            yield tuple(group)
            group, total = [], 0
        group.append(module)
        total += size
    yield tuple(group)


def task_entries(manifest: Manifest, sources: Iterable[Source], writer: "SetWriter") -> Manifest:
    """The manifest with the sources' entries, and their uncompressed tensors written."""
    tasks, configs = dict(manifest.tasks), dict(manifest.configs)
    ids = {_key(config): name for name, config in configs.items()}
    for source in sources:
        config = portable_config(source.config)
        name = ids.setdefault(_key(config), f"c{len(ids)}")
        configs[name] = config
        extra = writer.add_file("extra", source.extras(), source.metadata) if source.extra_names else None
        dtypes = {layer.dtype for layer in source.layers.values()}
        dtype = DTYPES[dtypes.pop()] if len(dtypes) == 1 else "f32"
        lora = sum(x.rank * (x.d_in + x.d_out) * numpy_dtype(x.dtype).itemsize for x in source.layers.values())
        tasks[source.name] = TaskEntry(name, source.metadata, dtype, extra, source.bytes_in, lora, 0.0, 0.0, True)
    return replace(manifest, tasks=tasks, configs=configs)


def with_errors(
    manifest: Manifest,
    state: "ShareState",
    stored: "ShareState",
    before: Mapping[str, TaskEntry],
    sources: Iterable[Source],
) -> Manifest:
    """The manifest with each task's error after the last change.

    A new task's error is measured against its original: by `state`, where nothing else was lost, else by comparing
    what is stored with the original once more. An old task's original is gone: its error is taken as the root of the
    sum of squares of what was measured at each merge and rounding, never above the proven bound.

    Args:
      manifest: what is known of the tasks.
      state: the state after the change.
      stored: what storing made of it.
      before: the entries of the tasks whose originals are gone.
      sources: the originals of the new tasks.
    """
    from share_jax.subspace.state import report

    tasks = dict(manifest.tasks)
    rounded = report(stored)
    for name, now in report(state).items():
        error = math.hypot(now.relative_change, rounded[name].relative_change)
        if name in before:
            bound = tasks[name].cut + rounded[name].error_bound
            error = min(math.hypot(before[name].relative_error, error), bound)
        tasks[name] = replace(tasks[name], relative_error=error, measured=name not in before)
    for source in sources:
        rank = manifest.pseudo_rank
        cut = rank is not None and any(layer.rank > rank for layer in source.layers.values())
        if cut or manifest.storage != "f32":
            tasks[source.name] = _compared(tasks[source.name], source, stored, rank if cut else None)
    return replace(manifest, tasks=tasks)


def _compared(entry: TaskEntry, source: Source, stored: "ShareState", rank: int | None) -> TaskEntry:
    """The entry with the error of what is stored, and of the cut to the pseudo rank, against the original."""
    from share_jax.adapters.arithmetic import balance
    from share_jax.subspace.state import factors_of

    adapter = source.adapter()
    cut = 0.0 if rank is None else _distance(adapter, balance(adapter, rank=rank))
    return replace(entry, cut=cut, relative_error=_distance(adapter, factors_of(stored, source.name)))


def _distance(x: "Adapter", y: "Adapter") -> float:
    """As `error_bounds.relative_distance`, from Gram matrices alone: quick, and exact to 1e-7."""
    from share_jax.subspace.error_bounds import squared_distance, squared_norm

    lost = norm = 0.0
    for name, factors in x.items():
        a, b = np.asarray(factors.lora_a, np.float64) * factors.scale, np.asarray(factors.lora_b, np.float64).T
        size = float(squared_norm(a, b))
        norm += size
        if name in y:
            size = float(squared_distance(a, b, np.asarray(y[name].lora_a), np.asarray(y[name].lora_b).T))
        lost += size
    return math.sqrt(lost / norm) if norm else 0.0


def ready_to_merge(state: "ShareState", storage: str) -> "ShareState":
    """The state in the gauge that merging expects: balanced coefficients."""
    return state if storage == "f32" else balanced_state(state)


def _key(config: Mapping[str, Any]) -> str:
    import json

    return json.dumps(config, sort_keys=True)
