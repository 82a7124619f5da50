"""The shapes of batches: with length buckets, a step is compiled once for each."""

from collections.abc import Iterable

from experiments.data.pipeline import Batch, Pipeline

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def shapes(batch: Batch) -> Shapes:
    """The shapes of a batch's inputs by name: what one compiled step can take."""
    return tuple((name, array.shape) for name, array in sorted(batch["inputs"].items()))


def samples_of(pipelines: Iterable[Pipeline]) -> list[Batch]:
    """One batch of each length that the pipelines' batches can have."""
    found: dict[int | None, Batch] = {}
    for pipeline in pipelines:
        for width in pipeline.widths:
            if width not in found:
                found[width] = pipeline.sample(width)
    return list(found.values())
