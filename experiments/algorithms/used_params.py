"""Which parameters of the backbone a task's inputs reach: what could train, where the layers below are cached."""

import re
from typing import Any

from experiments.algorithms.job import Job, example_of
from share_jax.layers.targets import match
from share_jax.linen.discover import uses
from share_jax.trees import flat


def reached(job: Job) -> tuple[str, ...]:
    """Paths of the parameters that a call with the stream's inputs uses, in order; heads are not among them."""
    backbone = job.backbone
    example: dict[str, Any] = example_of(job)
    found = uses(backbone.model, {"params": backbone.params}, (), example)
    heads = match(backbone.heads, flat(backbone.params), what="head")
    return tuple(sorted(set(found) - set(heads)))


def patterns(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Regular expressions that match exactly these paths."""
    return tuple(re.escape(path) for path in paths)
