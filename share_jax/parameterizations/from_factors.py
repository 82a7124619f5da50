"""Taking over a LoRA pair that was learnt elsewhere as the leaves of a parameterisation; on the host, in NumPy."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from share_jax.annotations import Float
from share_jax.errors import InputError, message

Pair = tuple[Float[np.ndarray, "d_in r"], Float[np.ndarray, "r d_out"]]

SPANNED = 1e-5
"""Distance, relative to an update's norm, up to which other columns give the same update: what float32 rounds away."""

HostLeaves = dict[str, np.ndarray]


@runtime_checkable
class FromFactors(Protocol):
    """A parameterisation whose leaves can be those of a LoRA pair that was learnt elsewhere."""

    def shared_from(self, pairs: Sequence[Pair], fresh: HostLeaves, what: str) -> HostLeaves:
        """Shared leaves with which each of the pairs can be a slot, for a bank that has learnt nothing yet.

        Args:
            pairs: (lora_a, lora_b) of every new task that adapts this target; at least one.
            fresh: the bank's own shared leaves, for what the pairs leave free: later tasks learn with it.
            what: the target, for messages.

        Raises:
            InputError: there are none.
        """
        ...

    def slot_from(
        self,
        shared: HostLeaves,
        lora_a: Float[np.ndarray, "d_in r"],
        lora_b: Float[np.ndarray, "r d_out"],
        scale: float,
        what: str,
    ) -> HostLeaves:
        """The leaves of a task whose update is `scale * lora_a @ lora_b`; the pair itself where that is possible.

        Raises:
            InputError: the update is none that the shared leaves and the rank allow.
        """
        ...


def padded_pair(lora_a: np.ndarray, lora_b: np.ndarray, rank: int, what: str) -> Pair:
    """The pair with columns of zeros up to `rank`.

    Raises:
        InputError: it has more.
    """
    short = rank - lora_a.shape[1]
    if short < 0:
        fix = f"adapt with rank={lora_a.shape[1]}"
        raise InputError(message(f"{what} rank", got=lora_a.shape[1], expected=f"at most the bank's {rank}", fix=fix))
    a, b = np.asarray(lora_a, np.float32), np.asarray(lora_b, np.float32)
    return np.pad(a, ((0, 0), (0, short))), np.pad(b, ((0, short), (0, 0)))


def common_columns(
    pairs: Sequence[Pair], fresh: Float[np.ndarray, "d_in rank"], what: str
) -> Float[np.ndarray, "d_in rank"]:
    """One A for all pairs: the one that they have, else orthonormal columns that span what their updates use.

    Args:
        pairs: (lora_a, lora_b) of every task.
        fresh: an A as it is initialised, whose columns fill up what the pairs do not need.
        what: the target, for messages.

    Raises:
        InputError: the updates use more columns than there are.
    """
    first, rank = np.asarray(pairs[0][0], np.float32), fresh.shape[1]

    def filled(own: np.ndarray) -> np.ndarray:
        return np.concatenate([own, fresh[:, own.shape[1] :]], axis=1).astype(np.float32)

    if first.shape[1] <= rank and all(np.array_equal(a, first) for a, _ in pairs):
        return filled(first)
    used = [np.asarray(a, np.float64) * np.linalg.norm(np.asarray(b, np.float64), axis=1) for a, b in pairs]
    left, values, _ = np.linalg.svd(np.concatenate(used, axis=1), full_matrices=False)
    columns = int(np.sum(values > SPANNED * values[0])) if values[0] > 0 else 0
    if columns > rank:
        got, expected = f"{columns} columns in A of {len(pairs)} adapters", f"at most {rank} that all of them share"
        fix = "take a bank of separate LoRAs (SeparateLoRA, --method separate), or Share, which projects"
        raise InputError(message(what, got=got, expected=expected, fix=fix))
    return filled(left[:, :columns])


def on_columns(
    own: Float[np.ndarray, "d_in rank"], lora_a: np.ndarray, lora_b: np.ndarray, what: str
) -> Float[np.ndarray, "rank d_out"]:
    """B with `own @ B = lora_a @ lora_b`: the pair's own B where its A is the first columns of `own`.

    Raises:
        InputError: the update is not within the columns of `own`.
    """
    rank = own.shape[1]
    if np.array_equal(np.asarray(lora_a, np.float32), own[:, : lora_a.shape[1]]):
        return padded_pair(lora_a, lora_b, rank, what)[1]
    wide, a, b = (np.asarray(x, np.float64) for x in (own, lora_a, lora_b))
    turn = np.linalg.lstsq(wide, a, rcond=None)[0]
    lost, size = (np.sqrt(max(0.0, np.sum((x.T @ x) * (b @ b.T)))) for x in (a - wide @ turn, a))
    if lost > SPANNED * size:
        got = f"another A than the bank's: {lost / size:.2g} of the update lies outside its columns"
        expected, fix = (
            "the bank's A, or columns that it spans",
            "take a bank of SeparateLoRA, or Share, which projects",
        )
        raise InputError(message(what, got=got, expected=expected, fix=fix))
    return (turn @ b).astype(np.float32)
