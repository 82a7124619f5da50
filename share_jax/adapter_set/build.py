"""From sources to the first state of a set, and from a set's state to one that merging takes."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from share_jax.adapter_set.int8_gauge import balanced_state
from share_jax.adapter_set.manifest import Settings
from share_jax.adapter_set.survey import Survey
from share_jax.adapters.arithmetic import cut_to
from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import groups
from share_jax.formats.adapter_file import Source
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.initialization import initialize_stream
from share_jax.subspace.prepared_batches import HELD_BYTES
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState

GROUP_BYTES = 2**28
"""How much of the adapters is held at once where whole layers are needed."""
SUM_BYTES = 2**29
"""How much of what bases follow from is held at once; past it adapters are read layer by layer."""

Report = Callable[[str, int, int | None], None]


def adapters_of(
    sources: Iterable[Source],
    pseudo_rank: int | None,
    modules: tuple[str, ...] | None = None,
    survey: Survey | None = None,
) -> Iterator[tuple[str, Adapter]]:
    """Each source's adapter, cut to the pseudo rank; `survey` sees it as it was."""
    for source in sources:
        adapter = source.adapter(modules)
        if survey is not None:
            survey.see(source.name, adapter)
        yield source.name, cut_to(adapter, pseudo_rank)


def build_state(
    sources: Sequence[Source], settings: Settings, progress: Report, survey: Survey | None = None
) -> ShareState:
    """The first state: bases and coefficients of all sources, streamed from their files.

    The columns geometry holds a few adapters at a time, and what bases follow from: where that is much, it goes layer
    by layer, unless an error over whole adapters chooses k. So does the flat geometry, which needs whole layers of all
    adapters at once. `survey` is told what errors are compared with.
    """
    choice = Choice(**settings.choice)
    names = tuple(source.name for source in sources)
    columns = settings.geometry == "columns"

    def streamed(modules: tuple[str, ...] | None) -> ShareState:
        return initialize_stream(
            lambda: adapters_of(sources, settings.pseudo_rank, modules, survey),
            choice,
            progress=lambda what, done: progress(what, done, None),
            observe=None if survey is None else survey.spectra_seen,
        )

    if columns and (choice.max_error is not None or sum(_summed_sizes(sources).values()) <= SUM_BYTES):
        return streamed(None)
    layers = {}
    # so that each group of the columns geometry is read once
    parts = list(layer_groups(sources, HELD_BYTES if columns else GROUP_BYTES, _by_shape(sources)))
    for i, modules in enumerate(parts):
        progress("layer group", i, len(parts))
        if columns:
            layers.update(streamed(modules).layers)
            continue
        some = dict(adapters_of(sources, settings.pseudo_rank, modules, survey))
        if survey is not None:
            survey.measure(some)
        layers.update(initialize_with(some, choice, geometry=settings.geometry).layers)
    return ShareState(names, {name: layers[name] for name in layer_sizes(sources) if name in layers})


def _by_shape(sources: Sequence[Source]) -> list[str]:
    """All targets, those of one shape together: they are computed side by side."""
    shapes: dict[str, tuple[int, int]] = {}
    for source in sources:
        shapes |= {name: (layer.d_in, layer.d_out) for name, layer in source.layers.items()}
    return [name for some in groups(shapes).values() for name in some]


def _summed_sizes(sources: Sequence[Source]) -> dict[str, int]:
    """Bytes of what a first pass keeps of all sources, by target: columns, or their Gram matrices if those are less."""
    columns: dict[str, int] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for source in sources:
        for module, layer in source.layers.items():
            columns[module] = columns.get(module, 0) + layer.rank
            shapes[module] = layer.d_in, layer.d_out
    return {name: sum(min(4 * d * columns[name], 8 * d * d) for d in shape) for name, shape in shapes.items()}


def layer_sizes(sources: Sequence[Source]) -> dict[str, int]:
    """Bytes that all sources' factors take in float32, by target."""
    sizes: dict[str, int] = {}
    for source in sources:
        for module, layer in source.layers.items():
            sizes[module] = sizes.get(module, 0) + 4 * layer.rank * (layer.d_in + layer.d_out)
    return sizes


def layer_groups(
    sources: Sequence[Source], limit: int = GROUP_BYTES, targets: Sequence[str] | None = None
) -> Iterator[tuple[str, ...]]:
    """The targets of all sources, or some, in groups of so many bytes that are held at once."""
    sizes = layer_sizes(sources)
    if targets is not None:
        sizes = {name: sizes[name] for name in targets}
    group: list[str] = []
    total = 0
    for module, size in sizes.items():
        if group and total + size > limit:
            yield tuple(group)
            group, total = [], 0
        group.append(module)
        total += size
    yield tuple(group)


def ready_to_merge(state: ShareState, storage: str) -> ShareState:
    """The state in the gauge that merging expects: balanced coefficients."""
    return state if storage == "f32" else balanced_state(state)
