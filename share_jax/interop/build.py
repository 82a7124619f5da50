"""From sources to the state and the manifest entries of a set."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from share_jax.interop.manifest import Manifest, TaskEntry
from share_jax.interop.peft import DTYPES
from share_jax.interop.peft_config import portable_config
from share_jax.interop.source import Source

if TYPE_CHECKING:
    from share_jax.core.fold import Adapter
    from share_jax.core.subspace import ShareState
    from share_jax.interop.adapter_set import SetWriter

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
    """Each source's adapter, read when it is asked for and cut to the pseudo rank."""
    from share_jax.core.fold import balance

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
    from share_jax.core.choice import Choice
    from share_jax.core.initialize import initialize, initialize_stream
    from share_jax.core.subspace import ShareState

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
        layers.update(initialize(some, choice, geometry=manifest.geometry).layers)
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
        tasks[source.name] = TaskEntry(name, source.metadata, dtype, extra, source.bytes_in, 0.0, 0.0, True)
    return replace(manifest, tasks=tasks, configs=configs)


def with_errors(
    manifest: Manifest, state: "ShareState", before: Mapping[str, TaskEntry], sources: Iterable[Source]
) -> Manifest:
    """The manifest with each task's error after the last change of the state.

    A new task's error is measured against its original, before any cut to the pseudo rank. An old task's original
    is gone: its error is taken as the root of the sum of squares of what was measured at each merge, never above the
    proven bound.
    """
    from share_jax.core.subspace import report

    tasks = dict(manifest.tasks)
    for name, now in report(state).items():
        entry = tasks[name]
        error = now.relative_change
        if name in before:
            error = min(math.hypot(before[name].relative_error, error), entry.cut + now.error_bound)
        tasks[name] = replace(entry, relative_error=error, measured=name not in before)
    if manifest.pseudo_rank is not None:
        tasks.update(_cut_errors(manifest.pseudo_rank, tasks, state, sources))
    return replace(manifest, tasks=tasks)


def _cut_errors(
    rank: int, tasks: Mapping[str, TaskEntry], state: "ShareState", sources: Iterable[Source]
) -> "Iterator[tuple[str, TaskEntry]]":
    """The entries of the sources that the pseudo rank has cut, measured against the originals."""
    from share_jax.core.bounds import relative_distance
    from share_jax.core.fold import balance
    from share_jax.core.subspace import factors_of

    for source in sources:
        if any(layer.rank > rank for layer in source.layers.values()):
            adapter = source.adapter()
            cut = relative_distance(adapter, balance(adapter, rank=rank))
            error = relative_distance(adapter, factors_of(state, source.name))
            yield source.name, replace(tasks[source.name], cut=float(cut), relative_error=float(error))


def without_change(state: "ShareState") -> "ShareState":
    """The state with the measured changes of earlier merges cleared, so that those of the next stand alone."""
    return replace(state, layers={name: replace(x, change=np.zeros_like(x.change)) for name, x in state.layers.items()})


def _key(config: Mapping[str, Any]) -> str:
    import json

    return json.dumps(config, sort_keys=True)
