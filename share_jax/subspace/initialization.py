"""The first subspace, from one adapter or from a thousand: stack, SVD, keep the top k, project."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from share_jax.adapters.factors import Adapter, nbytes
from share_jax.adapters.stacking import Packed
from share_jax.annotations import Float
from share_jax.errors import InputError, message
from share_jax.linalg.spectrum import Spectrum
from share_jax.subspace.accumulate import Key, Sketch, sketch_of, spectra_of
from share_jax.subspace.error_curves import TOLERANCES, RankSchedule, cut_within, ranks_by_tolerance, squared_errors
from share_jax.subspace.factor_columns import Columns
from share_jax.subspace.prepared_batches import Block, Prepare, PreparedBlocks
from share_jax.subspace.projection import TaskCoefficients, append, slots_on
from share_jax.subspace.rank_choice import Choice, choose
from share_jax.subspace.state import Geometry, ShareState, Subspace

BLOCK_BYTES = 2**26
"""Factors of adapters that go through a pass together, where many of them are as small as that."""

Read = Callable[[], Iterable[tuple[str, Adapter]]]
"""Gives all (task, adapter) pairs, the same ones in the same order each time it is called."""

Progress = Callable[[str, int], None]
"""Called with the name of the pass and the number of adapters done in it."""

Observe = Callable[[int, Sequence[str], Float[np.ndarray, "targets tasks m"]], None]
"""Called in the first pass with the position of a block's first task, targets of one shape, and the singular values of
the block's updates on them."""


def initialize(adapters: Mapping[str, Adapter], choice: Choice | None = None, *, seed: int = 0) -> ShareState:
    """One subspace per target from t >= 1 adapters (method, phase 1), and every task's coefficients on it.

    Factors are balanced and stacked side by side, and each side keeps the top-k left singular vectors of its
    stack; coefficients are projections. No centring. `flat_geometry.initialize_with` has the flat geometry.

    Args:
        adapters: tasks by name; a task may lack targets.
        choice: how k is chosen; an explained variance of 0.999 when None.
        seed: for the randomised path of wide stacks.

    Raises:
        InputError: there is no adapter, or two disagree about a target's shape.
        LimitError: `max_error` is below what float32 can reach.

    Example:
        >>> from share_jax.adapters import Factors
        >>> from share_jax.subspace import Choice, report
        >>> rng = np.random.default_rng(0)
        >>> names = ("cola", "rte", "sst2")
        >>> adapters = {name: {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))} for name in names}
        >>> state = initialize(adapters, Choice(k=6))
        >>> state.layers["query"].num_basis, report(state)["cola"].error_bound < 1e-5
        ((6, 6), True)
    """
    return initialize_stream(lambda: adapters.items(), choice or Choice(), chunk=64, seed=seed)


def initialize_stream(
    read: Read,
    choice: Choice,
    *,
    chunk: int = 16,
    progress: Progress | None = None,
    observe: Observe | None = None,
    seed: int = 0,
) -> ShareState:
    """As `initialize`, exactly, with few adapters in memory; columns geometry.

    The first pass over `read()` sums up what the bases need (`Sketch`), the last one projects; `max_error` takes one
    more between them. Adapters that are small together (`prepared_batches.HELD_BYTES`) are held and read once. Of more,
    no more than `chunk` are in memory at a time, or as many as take `BLOCK_BYTES` if they are more; what is held does
    not depend on their number then, but for the coefficients.

    Args:
        read: gives all (name, adapter) pairs, the same ones each time it is called.
        choice: how k is chosen.
        chunk: adapters that are in memory at a time.
        progress: is told the name of a pass and how many adapters it has done.
        observe: is told the singular values of the updates in the first pass.
        seed: for the randomised path of wide stacks.

    Raises:
        InputError: there is no adapter, two disagree about a target's shape, or a name occurs twice.
        LimitError: `max_error` is below what float32 can reach.

    Example:
        >>> from share_jax.adapters import Factors
        >>> def read():  # from files, one after another
        ...     for seed, name in enumerate(("cola", "rte")):
        ...         rng = np.random.default_rng(seed)
        ...         yield name, {"query": Factors(rng.normal(size=(8, 2)), rng.normal(size=(2, 6)))}
        >>> initialize_stream(read, Choice(k=4)).tasks
        ('cola', 'rte')
    """
    tell = progress or (lambda stage, done: None)
    names: list[str] = []
    held = PreparedBlocks()

    def blocks() -> Iterator[Block]:
        return chunks(read(), chunk)

    def batches() -> Iterator[list[Adapter]]:
        for tasks, adapters in held.first(blocks()):
            names.extend(tasks)
            yield adapters
            tell("basis", len(names))

    def first(adapters: Sequence[Adapter], targets: Sequence[str], least: int) -> tuple[Packed, Columns]:
        packed, columns = held.prepare(adapters, targets, least)
        if observe is not None and columns.known is not None:
            observe(len(names) - len(adapters), targets, columns.known.squares)
        return packed, columns

    sketch = sketch_of(batches(), first)
    if not names:
        raise InputError(message("adapters", got="none", expected="at least one", fix="pass one adapter or more"))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(message("task names", got=f"{twice!r} twice", expected="distinct names", fix="rename one"))
    found = spectra_of(sketch, k=choice.k, seed=seed)
    sketch = replace(sketch, sides={})  # the sums are no longer needed, and they are what is large
    if choice.max_error is None:
        return _project_all(bases_of(sketch, found, choice), held.again(blocks), held.prepare, tell)
    full = _with_ks(sketch, found, {key: x.rank for key, x in found.items()})
    schedules = {n: RankSchedule(*(ranks_by_tolerance(found[n, s]) for s in "ab")) for n in sketch.shapes}
    errors, norms = _error_curves(full, schedules, held.again(blocks), held.prepare, tell)

    def cut(step: int) -> ShareState:
        ks = {(n, s): k for n, x in schedules.items() for s, k in zip("ab", x.at(step), strict=True)}
        return _project_all(_with_ks(sketch, found, ks), held.again(blocks), held.prepare, tell)

    return cut_within(errors, norms, choice.max_error, cut)


def bases_of(sketch: Sketch, found: Mapping[Key, Spectrum], choice: Choice) -> ShareState:
    """The state without tasks: every target's bases, k by `choice` (any but `max_error`)."""
    return _with_ks(sketch, found, {key: choose(choice, x) for key, x in found.items()})


def _with_ks(sketch: Sketch, found: Mapping[Key, Spectrum], ks: Mapping[Key, int]) -> ShareState:
    return ShareState((), {name: _layer(shape, sketch, found, ks, name) for name, shape in sketch.shapes.items()})


def _layer(
    shape: tuple[int, int], sketch: Sketch, found: Mapping[Key, Spectrum], ks: Mapping[Key, int], name: str
) -> Subspace:
    bases = [np.ascontiguousarray(found[name, s].basis[:, : ks[name, s]]) for s in "ab"]
    return without_tasks(shape, "columns", bases[0], bases[1], sketch.pseudo_rank)


def without_tasks(
    shape: tuple[int, int], geometry: Geometry, basis_a: np.ndarray, basis_b: np.ndarray, q: int
) -> Subspace:
    """A target's bases before any task is on them."""
    none = np.zeros(0)
    coeff_a, coeff_b = (np.zeros((0, x.shape[1], q), np.float32) for x in (basis_a, basis_b))
    ranks = np.zeros(0, np.int32)
    return Subspace(shape, geometry, basis_a, basis_b, coeff_a, coeff_b, ranks, none, none, none, none, none)


def chunks(pairs: Iterable[tuple[str, Adapter]], size: int) -> Iterator[tuple[list[str], list[Adapter]]]:
    """Names and adapters, `size` at a time, or as many as take `BLOCK_BYTES` if they are more."""
    names: list[str] = []
    adapters: list[Adapter] = []
    held = 0
    for name, adapter in pairs:
        own = nbytes(adapter)
        if len(names) >= size and held + own > BLOCK_BYTES:
            yield names, adapters
            names, adapters, held = [], [], 0
        names.append(name)
        adapters.append(adapter)
        held += own
    if names:
        yield names, adapters


def _project_all(bases: ShareState, blocks: Iterable[Block], prepare: Prepare, tell: Progress) -> ShareState:
    names: list[str] = []
    slots: dict[str, list[TaskCoefficients]] = {name: [] for name in bases.layers}
    for tasks, adapters in blocks:
        for name, part in slots_on(bases.layers, adapters, prepare).items():
            slots[name].append(part)
        names += tasks
        tell("coefficients", len(names))
    return ShareState(tuple(names), append(bases.layers, slots))


def _error_curves(
    full: ShareState,
    schedules: Mapping[str, RankSchedule],
    blocks: Iterable[Block],
    prepare: Prepare,
    tell: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of every task's whole adapter at every tolerance, (T, G), and its norm, (T,)."""
    errors, norms = [], []
    for _, adapters in blocks:
        slots = slots_on(full.layers, adapters, prepare)
        curves = [squared_errors(x.coeff_a, x.coeff_b, schedules[name]) for name, x in slots.items()]
        errors.append(sum(curves, np.zeros((len(adapters), len(TOLERANCES)))))
        norms.append(np.sqrt(sum((x.norm**2 for x in slots.values()), np.zeros(len(adapters)))))
        tell("errors", sum(len(x) for x in errors))
    return np.concatenate(errors), np.concatenate(norms)
