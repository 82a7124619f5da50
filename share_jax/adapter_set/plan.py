"""What compressing a collection would cost and lose, for many sizes at once, with nothing written.

Layers are measured group by group, so that memory does not grow with the model. One basis of the largest k gives the
error at every smaller one (`subspace.error_curves`), and the null comes from the singular values alone. Of a large
collection a part of the layers is measured, evenly spread over each shape, and stands for the others of that shape.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from share_jax.adapter_set.build import adapters_of, layer_groups, layer_sizes
from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.adapter_set.plan_storage import stored_sizes
from share_jax.adapter_set.survey import Survey
from share_jax.adapters.factors import Adapter
from share_jax.adapters.shared_starts import Starts, find_starts, sample_of
from share_jax.annotations import Float
from share_jax.formats.adapter_file import Source
from share_jax.linalg.rank_selection import k_by_explained_variance
from share_jax.runtime.threads import parallel_map
from share_jax.storage.safetensors_file import numpy_dtype
from share_jax.subspace.baselines import NUMBER_BYTES, cut_errors, null_of_layer
from share_jax.subspace.error_curves import RankSchedule, flat_curve, squared_errors
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.initialization import initialize_stream
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState, Subspace

KS = (4, 8, 16, 32, 64, 128)
SHARES = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
"""Sizes of the columns geometry that are tried: k, and explained variances, which give each side a k of its own. The
flat geometry's are shares of the number of tasks."""
WHOLE_SPECTRA = 1024
"""Up to so many columns in a stack explained variances are tried: they ask for all singular values."""
MEASURED_BYTES = 2**30
"""Factors that are measured where nobody asks for all layers."""
_PER_TASK, _PER_SET = 280, 1000
"""Bytes of a task in the manifest, and of what a set has once, about."""
_START_TARGETS = 8

Size = tuple[str, float]
"""How k is chosen: ("k", 32) or ("explained_variance", 0.99)."""
Key = tuple[str, str, Size, str]
"""(sets, geometry, size, storage)."""
Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Plan:
    """What was measured.

    Attributes:
        rows: by sets, geometry, k and storage.
        starts: which tasks began with one A.
        bytes_in: of the adapters' files.
        layers: how many there are.
        measured: how many of them the figures are of.
    """

    rows: tuple[PlanRow, ...]
    starts: Starts
    bytes_in: int
    layers: int
    measured: int


@dataclass
class _Tally:
    """Sums over the layers measured so far, each weighted by how many it stands for."""

    tasks: int
    lost: dict[Key, Float[np.ndarray, " T"]] = field(default_factory=dict)
    null: dict[Key, Float[np.ndarray, " T"]] = field(default_factory=dict)
    rounding: dict[Key, Float[np.ndarray, " T"]] = field(default_factory=dict)
    size: dict[Key, float] = field(default_factory=lambda: defaultdict(float))
    ks: dict[Key, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(
        self, key: Key, tasks: Sequence[int], lost: np.ndarray, null: np.ndarray, rounding: np.ndarray, size: float
    ) -> None:
        """What some tasks lose on a layer, at random, and by rounding alone; and the bytes that it takes."""
        for into, new in ((self.lost, lost + rounding), (self.null, null + rounding), (self.rounding, rounding)):
            into.setdefault(key, np.zeros(self.tasks))[list(tasks)] += new
        self.size[key] += size


def starts_of(sources: Sequence[Source]) -> Starts:
    """The groups of tasks that began with one A, from a few layers of each."""
    samples = []
    for source in sources:
        names = sorted(source.layers)
        samples.append(sample_of(source.adapter(tuple(names[:: max(1, len(names) // _START_TARGETS)]))))
    return find_starts(samples)


def measured_layers(sources: Sequence[Source], limit: int | None = MEASURED_BYTES) -> dict[str, float]:
    """The layers to measure, and how many of its shape each stands for.

    Args:
        sources: the adapters.
        limit: of their factors' bytes; all layers if None.
    """
    sizes = layer_sizes(sources)
    shapes: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, shape in _shapes(sources).items():
        shapes[shape].append(name)
    share = 1.0 if limit is None else min(1.0, limit / max(sum(sizes.values()), 1))
    out = {}
    for names in shapes.values():
        count = max(1, int(len(names) * share))
        taken = [names[i * len(names) // count] for i in range(count)]
        out |= dict.fromkeys(taken, len(names) / count)
    return {name: out[name] for name in sizes if name in out}


def _shapes(sources: Sequence[Source]) -> dict[str, tuple[int, int]]:
    return {name: (x.d_in, x.d_out) for source in sources for name, x in source.layers.items()}


def measure_plan(
    sources: Sequence[Source],
    *,
    ks: Sequence[int] | None = None,
    geometries: Sequence[str] = ("columns", "flat"),
    storages: Sequence[str] = tuple(NUMBER_BYTES),
    limit: int | None = MEASURED_BYTES,
    progress: Report = lambda what, done, total: None,
) -> Plan:
    """Errors and bytes for every size, geometry and storage.

    Args:
        sources: the adapters, of one base model.
        ks: numbers of columns to try; `KS`, `SHARES`, and for the flat geometry shares of the number of tasks, if None.
        geometries: of them.
        storages: of them.
        limit: see `measured_layers`.
        progress: called with layers that are done.
    """
    starts, weights = starts_of(sources), measured_layers(sources, limit)
    count = len(sources)
    parts = [("one", tuple(range(count)))]
    if starts.divided:
        parts += [("split", group) for group in starts.groups]
    names = [source.name for source in sources]
    columns = max(sum(s.layers[n].rank for s in sources if n in s.layers) for n in weights)
    whole = columns <= WHOLE_SPECTRA
    sizes: dict[str, list[Size]] = {"columns": _below(ks or KS, columns)}
    if ks is None and whole:
        sizes["columns"] += [("explained_variance", x) for x in SHARES]
    sizes["flat"] = _below(ks or [-(-count // n) for n in (8, 4, 2)], count)
    tally, survey, done = _Tally(count), Survey(names), 0
    for group in layer_groups(sources, targets=list(weights)):
        progress("layers measured", done, len(weights))
        adapters = dict(adapters_of(sources, None, group))
        survey.measure(adapters)
        steps, passed = len(parts) * len(geometries), 0
        for sets, members in parts:
            own = {names[t]: adapters[names[t]] for t in members}
            for geometry in geometries:
                most = None if whole or geometry == "flat" else int(sizes[geometry][-1][1])
                state = _full(own, geometry, most)
                if state is not None:
                    spectra = {name: survey.spectra[name][list(members)] for name in state.layers}
                    what = sets, geometry, sizes[geometry], storages
                    _measure(tally, what, members, state, spectra, weights)
                passed += 1
                progress("layers measured", done + len(group) * passed // steps, len(weights))
        done += len(group)
    return Plan(_rows(tally, sources, survey, starts, weights), starts, sum(s.bytes_in for s in sources),
                len(_shapes(sources)), len(weights))  # fmt: skip


def _below(wanted: Sequence[int], most: int) -> list[Size]:
    """The sizes below what would keep everything, ascending; one at least."""
    return [("k", k) for k in sorted({k for k in wanted if k < most}) or [max(1, most // 2)]]


def _full(own: Mapping[str, Adapter], geometry: str, k: int | None) -> ShareState | None:
    """The state on the largest bases, all columns if `k` is None; None where no task has these layers."""
    if not any(own.values()):
        return None
    choice = Choice(relative_error=0.0) if k is None else Choice(k=k)
    if geometry == "columns":
        return initialize_stream(lambda: own.items(), choice, chunk=len(own))
    return initialize_with(own, choice, geometry="flat")


def _columns_of(layer: Subspace, size: Size) -> tuple[int, int]:
    """(k, k') of a size on a target's largest bases."""
    how, value = size
    if how == "k":
        return min(int(value), layer.num_basis[0]), min(int(value), layer.num_basis[1])
    found = []
    for side in "ab":
        # what a column of the basis stands for is the energy of its coefficients
        squares = np.sum(getattr(layer, f"coeff_{side}").astype(np.float64) ** 2, axis=(0, 2))
        total = float(getattr(layer, f"energy_{side}").sum())
        found.append(int(k_by_explained_variance(np.sqrt(squares), total, len(squares), value)))
    return found[0], found[1]


def _measure(
    tally: _Tally,
    what: tuple[str, str, Sequence[Size], Sequence[str]],
    members: Sequence[int],
    full: ShareState,
    spectra: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
) -> None:
    """Adds what the targets lose and take at every size in every storage; targets side by side.

    Args:
        tally: the sums.
        what: the sets, the geometry, its sizes, and storages.
        members: the tasks.
        full: their state on the largest bases.
        spectra: of their updates.
        weights: how many layers each target stands for.
    """
    sets, geometry, sizes, storages = what

    def one(name: str) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray, list[list[tuple[np.ndarray, int]]]]:
        layer = full.layers[name]
        ks = [_columns_of(layer, size) for size in sizes]
        schedule = RankSchedule(*np.array(ks).T)
        lost, null = _lost(layer, schedule), null_of_layer(layer, spectra[name], schedule)
        return ks, lost, null, [stored_sizes(name, layer, full.tasks, ks, storage) for storage in storages]

    for name, (ks, lost, null, stored) in zip(full.layers, parallel_map(one, list(full.layers)), strict=True):
        w = weights[name]
        for i, size in enumerate(sizes):
            for storage, each in zip(storages, stored, strict=True):
                moved, taken = each[i]
                key = sets, geometry, size, storage
                tally.add(key, members, w * lost[:, i], w * null[i], w * moved, w * taken)
                tally.ks[key] += ks[i]


def _lost(layer: Subspace, schedule: RankSchedule) -> Float[np.ndarray, "T G"]:
    """Squared errors of a target's tasks with the first k and k' columns alone, at every size."""
    if layer.geometry == "columns":
        return layer.change[:, None] ** 2 + squared_errors(layer.coeff_a, layer.coeff_b, schedule)
    return layer.change[:, None] ** 2 + flat_curve(layer, schedule)


def _rows(
    tally: _Tally, sources: Sequence[Source], survey: Survey, starts: Starts, weights: Mapping[str, float]
) -> tuple[PlanRow, ...]:
    spectra = {name: values * weights[name] ** 0.5 for name, values in survey.spectra.items()}
    norm = np.sum([np.sum(values**2, axis=1) for values in spectra.values()], axis=0)
    norm = np.where(norm > 0, norm, 1)
    shapes = _shapes(sources)
    part = sum(sum(shapes[n]) for n in weights) / sum(sum(shapes[n]) * w for n, w in weights.items())
    beside = sum(_extra_bytes(source) for source in sources)
    alone = sum(_factor_bytes(sources[t]) for t in starts.alone)
    rows = []
    for key, lost in tally.lost.items():
        sets, geometry, choice, storage = key
        size = tally.size[key] + (alone if sets == "split" else 0)
        errors, at_random, rounding = (np.sqrt(x / norm) for x in (lost, tally.null[key], tally.rounding[key]))
        cut = np.hypot(cut_errors(spectra, shapes, size * part, NUMBER_BYTES[storage]), rounding)
        on_disk = int(size + beside + _PER_TASK * len(sources) + _PER_SET)
        means = float(errors.mean()), float(errors.max()), float(at_random.mean()), float(cut.mean())
        rows.append(PlanRow(sets, geometry, choice, float(np.mean(tally.ks[key])), storage, on_disk, *means))
    return tuple(rows)


def _factor_bytes(source: Source) -> int:
    return sum(x.rank * (x.d_in + x.d_out) * numpy_dtype(x.dtype).itemsize for x in source.layers.values())


def _extra_bytes(source: Source) -> int:
    """Of the tensors that stay as they are."""
    return sum(len(raw.data) for raw in source.extras().values()) if source.extra_names else 0
