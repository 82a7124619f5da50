"""What storing has cost each task of a set: measured errors, and the set's limit on what is proven of them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from share_jax.adapter_set.manifest import Settings, TaskEntry
from share_jax.adapters.arithmetic import cut_to
from share_jax.adapters.factors import Adapter
from share_jax.errors import LimitError, message
from share_jax.formats.adapter_file import Source
from share_jax.storage.untrusted import shown
from share_jax.subspace.error_bounds import relative_distance, squared_distance, squared_norm
from share_jax.subspace.state import ShareState, factors_of, report


@dataclass(frozen=True)
class CompressionLoss:
    """The error of one task's whole update against its original, relative to the original's norm."""

    cut: float  # what the pseudo rank took away
    relative_error: float
    measured: bool  # false once a merge has moved the task: the error is then an estimate below the bound


def task_errors(
    settings: Settings,
    state: ShareState,
    stored: ShareState,
    before: Mapping[str, TaskEntry],
    sources: Iterable[Source],
) -> dict[str, CompressionLoss]:
    """Each task's error after the last change.

    A new task's error is measured against its original: by `state`, where nothing else was lost, else by comparing
    what is stored with the original once more. An old task's original is gone: its error is taken as the root of the
    sum of squares of what was measured at each merge and rounding, never above the proven bound.

    Args:
        settings: how the set compresses.
        state: the state after the change.
        stored: what storing made of it.
        before: the entries of the tasks whose originals are gone; some may have left the state.
        sources: the originals of the new tasks.
    """
    rounded = report(stored)
    moved = {
        name: math.hypot(now.relative_change, rounded[name].relative_change) for name, now in report(state).items()
    }
    errors = {name: CompressionLoss(0.0, error, True) for name, error in moved.items()}
    for name in moved.keys() & before.keys():
        old = before[name]
        bound = old.cut + rounded[name].error_bound
        errors[name] = CompressionLoss(old.cut, min(math.hypot(old.relative_error, moved[name]), bound), False)
    for source in sources:
        rank = settings.pseudo_rank
        cut = rank is not None and any(layer.rank > rank for layer in source.layers.values())
        if cut or settings.storage != "f32":
            errors[source.name] = _compared(source, stored, rank)
    return errors


def check_limit(settings: Settings, errors: Mapping[str, CompressionLoss], stored: ShareState) -> None:
    """Refuses a state that is stored with a task past the set's limit.

    Raises:
        LimitError: naming the worst.
    """
    if settings.limit is None:
        return
    bounds = {name: errors[name].cut + found.error_bound for name, found in report(stored).items()}
    worst = max(bounds, key=lambda name: bounds[name])
    if bounds[worst] > settings.limit * (1 + 1e-6):
        raise LimitError(
            message(f"task {shown(worst)} error bound as stored ({settings.storage})", got=f"{bounds[worst]:.3g}",
                 expected=f"at most {settings.limit:g}",
                 fix="take --storage f32 and no --pseudo-rank when the set is made, or a larger --max-error")
        )  # fmt: skip


def _compared(source: Source, stored: ShareState, rank: int | None) -> CompressionLoss:
    """The error of what is stored, and of the cut to the pseudo rank, against the original."""
    adapter = source.adapter()
    narrow = cut_to(adapter, rank)
    cut = 0.0 if narrow is adapter else relative_distance(adapter, narrow)  # a part of the task's bound
    return CompressionLoss(cut, _gram_distance(adapter, factors_of(stored, source.name)), True)


def _gram_distance(x: Adapter, y: Adapter) -> float:
    """As `error_bounds.relative_distance`, from Gram matrices instead of QR decompositions.

    A difference of squares, exact to 1e-7 only, where that one is exact to float64's rounding: enough for the error of
    a rounding, which is larger, and a fraction of the time for what is done with every adapter of a set.
    """
    lost = norm = 0.0
    for name, factors in x.items():
        a, b = np.asarray(factors.lora_a, np.float64) * factors.scale, np.asarray(factors.lora_b, np.float64).T
        size = float(squared_norm(a, b))
        norm += size
        if name in y:
            size = float(squared_distance(a, b, np.asarray(y[name].lora_a), np.asarray(y[name].lora_b).T))
        lost += size
    return math.sqrt(lost / norm) if norm else 0.0
