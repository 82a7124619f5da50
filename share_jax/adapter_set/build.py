"""From sources to the first state of a set, and from a set's state to one that merging takes."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from share_jax.adapter_set.int8_gauge import balanced_state
from share_jax.adapter_set.manifest import Settings
from share_jax.adapters.arithmetic import cut_to
from share_jax.adapters.factors import Adapter
from share_jax.formats.adapter_file import Source
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.initialization import initialize_stream
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState

GROUP_BYTES = 2**28
"""How much of the adapters is held at once where whole layers are needed."""

Report = Callable[[str, int, int | None], None]


def adapters_of(
    sources: Iterable[Source], pseudo_rank: int | None, modules: tuple[str, ...] | None = None
) -> Iterator[tuple[str, Adapter]]:
    """Each source's adapter, cut to the pseudo rank."""
    for source in sources:
        yield source.name, cut_to(source.adapter(modules), pseudo_rank)


def build_state(sources: Sequence[Source], settings: Settings, progress: Report) -> ShareState:
    """The first state: bases and coefficients of all sources, streamed from their files.

    The columns geometry holds a few adapters at a time; the flat one, which needs whole layers of all adapters at
    once, goes layer by layer.
    """
    choice = Choice(**settings.choice)
    if settings.geometry == "columns":
        return initialize_stream(
            lambda: adapters_of(sources, settings.pseudo_rank),
            choice,
            progress=lambda what, done: progress(what, done, None),
        )
    layers = {}
    groups = list(_groups(sources))
    for i, modules in enumerate(groups):
        progress("layer group", i, len(groups))
        some = dict(adapters_of(sources, settings.pseudo_rank, modules))
        layers.update(initialize_with(some, choice, geometry=settings.geometry).layers)
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


def ready_to_merge(state: ShareState, storage: str) -> ShareState:
    """The state in the gauge that merging expects: balanced coefficients."""
    return state if storage == "f32" else balanced_state(state)
