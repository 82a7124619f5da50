"""Forms of an update that is folded into its kernel: A B as one product, or as a sum of outer products.

All kernels of the text encoder at once, as a forward pass of one task folds them, at several ranks.
"""

import jax
import jax.numpy as jnp

from experiments.bench.steps import OURS, forward_case
from experiments.bench.subjects import minilm
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, ratio, timed
from experiments.studies.alternatives.equal import hold_equal
from experiments.studies.alternatives.layer_forms import saved
from share_jax.ops.products import outer_products
from share_jax.typing import Array

RANKS = (4, 8, 16, 32)
SHAPES = (*[(384, 384)] * 4, (384, 1536), (1536, 384)) * 6
"""Of the kernels of six layers."""

Pair = tuple[Array, Array]


def by_product(kernels: list[Array], pairs: list[Pair]) -> list[Array]:
    """W + A B, the product for itself."""
    return [kernel + a @ b for kernel, (a, b) in zip(kernels, pairs, strict=True)]


def by_outer_products(kernels: list[Array], pairs: list[Pair]) -> list[Array]:
    """The same as a sum of outer products at any rank; the library's form up to `OUTER_COLUMNS` columns."""
    return [kernel + outer_products(a, b) for kernel, (a, b) in zip(kernels, pairs, strict=True)]


def fold_part(options: Options) -> SuiteResult:
    """Both forms at every rank."""
    shapes = ((8, 8), (8, 16)) if options.tiny else SHAPES
    keys = iter(jax.random.split(jax.random.key(0), 3 * len(shapes) * len(RANKS)))
    kernels = [jnp.ones(shape) for shape in shapes]
    subject = minilm(8 if options.tiny else 32, tiny=options.tiny)
    cases = [forward_case(subject, "folded update: ")]
    for rank in RANKS:
        draw = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
        pairs = [(draw(d_in, rank), draw(rank, d_out)) for d_in, d_out in shapes]
        ours, other = jax.jit(by_outer_products), jax.jit(by_product)
        hold_equal(f"folded update, rank {rank}", other(kernels, pairs), ours(kernels, pairs))
        for name, run in (("outer products", ours), ("product", other)):
            call = timed(lambda run=run, pairs=pairs: run(kernels, pairs))
            cases.append(Case(f"folded update: rank {rank}, {name}", OURS, call))
    times, rows = raced(cases, options.rounds, options)
    forward, found = times["folded update: frozen forward", OURS], {}
    for rank in RANKS:
        ours, other = (times[f"folded update: rank {rank}, {name}", OURS] for name in ("outer products", "product"))
        found[f"folded update: rank {rank}, product / outer products"] = ratio(other, ours)
        found[f"folded update: rank {rank}, product, saved of the forward pass"] = saved(ours, other, forward, 1.0)
    return SuiteResult(rows, found)
