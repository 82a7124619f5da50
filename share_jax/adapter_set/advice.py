"""What to do with a collection, from errors that stand beside those of chance and of cutting every adapter alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.adapters.shared_starts import Starts

SHARES = 0.75
"""At most this share of the null's error counts as a subspace that adapters share."""
SAVES = 0.8
"""At most this share of the adapters' bytes counts as a saving."""
AIM = 0.1
"""The mean relative error of a task's update that advice aims for where nobody says another."""
WORTH_SPLITTING = 0.9
"""Several sets are advised if they take at most this share of the bytes of one."""

Action = Literal["compress", "split", "leave", "nothing"]


@dataclass(frozen=True)
class Advice:
    """What to do, and why.

    Attributes:
        action: "compress" into one set, "split" into a set for each group, "leave" the adapters as they are, or
            "nothing", where there is nothing to compare.
        reason: one or two sentences.
        row: the row of a plan that it is about.
    """

    action: Action
    reason: str
    row: PlanRow | None = None


def judge(error: float, null: float, cut: float, bytes_in: int, bytes_out: int, starts: Starts) -> Advice:
    """What to do about a set that was made.

    >>> judge(0.97, 0.98, 0.6, 10_000, 900, Starts((), (0, 1, 2), ())).action
    'leave'

    Args:
        error: mean relative error of its tasks.
        null: that of random adapters of the same spectra at the same k.
        cut: that of every adapter cut alone to the same bytes.
        bytes_in: of the adapters.
        bytes_out: of the set.
        starts: the groups that began with one A.
    """
    if len(starts.alone) + sum(map(len, starts.groups)) < 2:
        return Advice("nothing", "One adapter has nothing to share.")
    if bytes_out >= bytes_in:
        return Advice("leave", "The set is larger than the adapters: take a smaller k, or leave them as they are.")
    beside = f"error {error:.3g}, that of random adapters of the same spectra {null:.3g}, cut alone {cut:.3g}"
    if error > SHARES * null:
        if starts.divided:
            reason = f"As one set the adapters share hardly more than chance ({beside}), but some began with the same A"
            return Advice("split", f"{reason}: those may compress by themselves.")
        return Advice("leave", f"The adapters share hardly more than chance ({beside}): leave them as they are.")
    if cut <= error:
        return Advice("leave", f"Each adapter cut alone to the same bytes loses less ({beside}).")
    if starts.divided and error > AIM:
        return Advice("split", f"The adapters began with different As ({beside}): a set for each group may lose less.")
    return Advice("compress", f"The set is worth its bytes ({beside}).")


def worth(row: PlanRow, bytes_in: int) -> bool:
    """Whether a row saves bytes, beats chance, and beats cutting every adapter alone to its bytes."""
    return row.bytes < SAVES * bytes_in and row.error < min(SHARES * row.null, row.cut)


def advise(rows: Sequence[PlanRow], bytes_in: int, aim: float) -> Advice:
    """The smallest of a plan's rows that is worth it with its mean error within `aim`, or the advice to do without.

    Args:
        rows: of the plan.
        bytes_in: of the adapters.
        aim: the mean relative error that is wanted.
    """
    good = [row for row in rows if worth(row, bytes_in)]
    within = [row for row in good if row.error <= aim]
    if within:
        best = min(within, key=lambda row: (row.bytes, row.error))
        if best.sets == "split":
            one = min((row for row in within if row.sets == "one"), key=lambda row: row.bytes, default=None)
            if one is not None and best.bytes > WORTH_SPLITTING * one.bytes:
                best = one
        size = f"{bytes_in / best.bytes:.1f} times smaller at a mean error of {best.error:.3g}"
        how = "A set for each group that began with one A" if best.sets == "split" else "One set"
        return Advice("split" if best.sets == "split" else "compress", f"{how}: {size}, where random adapters lose "
                      f"{best.null:.3g} and cutting each alone to the same bytes {best.cut:.3g}.", best)  # fmt: skip
    if good:
        near = min(good, key=lambda row: row.error)
        return Advice("leave", f"The adapters share something, but no size tried comes within {aim:g} and is worth it: "
                      f"at k = {near.k:.0f} the mean error is {near.error:.3g}. Leave them as they are, or allow more "
                      "(--max-error).", near)  # fmt: skip
    if any(row.bytes < SAVES * bytes_in and row.error < SHARES * row.null for row in rows):
        return Advice("leave", "Each adapter cut alone to the same bytes loses no more than a set does: leave them as "
                               "they are.")  # fmt: skip
    return Advice("leave", "At no size that saves bytes do the adapters share clearly more than random ones of the "
                           "same spectra: leave them as they are.")  # fmt: skip


def frontier(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """The rows that no other row beats in both bytes and mean error, smallest first."""
    out: list[PlanRow] = []
    for row in sorted(rows, key=lambda row: (row.bytes, row.error)):
        if not out or row.error < out[-1].error:
            out.append(row)
    return out
