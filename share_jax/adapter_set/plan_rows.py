"""One way to compress a collection, with what it would cost and lose."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanRow:
    """A row of a plan; errors are relative to whole adapters.

    Attributes:
        sets: "one" set of all, or "split": one for each group that began with one A, the others left as they are.
        geometry: of the bases.
        choice: how k is chosen: ("k", 32), or ("explained_variance", 0.99) for a k of its own per layer and side.
        k: columns per layer and side that this comes to, in the mean.
        storage: f32, bf16 or int8.
        bytes: on disk, about: arrays exactly, manifests estimated.
        error: mean over the tasks.
        worst: the largest of them.
        null: the mean error of random adapters of the same spectra at the same k.
        cut: the mean error of each adapter cut alone to the same bytes.
    """

    sets: str
    geometry: str
    choice: tuple[str, float]
    k: float
    storage: str
    bytes: int
    error: float
    worst: float
    null: float
    cut: float
