"""The matrix products of the models, for themselves: XLA's time of each beside torch's.

What a train step takes of PEFT's is bounded by them: a model's products are most of its steps, and both runtimes have
the same ones to do. Per model, the largest product of its linear layers and the two kinds of its attention: many small
products, one per example and head.
"""

import jax
import jax.numpy as jnp

from experiments.bench.peer import Peer
from experiments.bench.steps import OURS
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, ratio, timed

TORCH = "torch"
IN_A_ROW = 8
"""So many of a product are timed in a row, as the layers of a model have them: threads are awake, memory is at hand."""
Shape = tuple[int, int, int, int]
"""(how many, rows, inner, columns)."""

PRODUCTS: dict[str, tuple[Shape, ...]] = {
    "vit": ((1, 2080, 192, 768), (96, 65, 64, 65), (96, 65, 65, 64)),
    "minilm, 32 tokens": ((1, 1024, 384, 1536), (384, 32, 32, 32)),
    "minilm, 128 tokens": ((1, 4096, 384, 1536), (384, 128, 32, 128), (384, 128, 128, 32)),
}
"""By model: FFN-up, queries with keys, weights with values."""

TINY: dict[str, tuple[Shape, ...]] = {"vit": ((1, 8, 4, 4), (3, 4, 2, 4))}


def named(shape: Shape) -> str:
    """A product's name.

    >>> named((1, 8, 4, 2)), named((3, 8, 4, 2))
    ('8 x 4 x 2', '3 of 8 x 4 x 2')
    """
    count, rows, inner, columns = shape
    return f"{f'{count} of ' if count > 1 else ''}{rows} x {inner} x {columns}"


def operations(shape: Shape) -> int:
    """Multiplications and additions.

    >>> operations((3, 8, 4, 2))
    384
    """
    count, rows, inner, columns = shape
    return 2 * count * rows * inner * columns


def products_part(options: Options, peer: Peer | None) -> SuiteResult:
    """Every product on both sides, ours alone without a peer."""
    run = jax.jit(jnp.matmul)
    cases = []
    for model, shapes in (TINY if options.tiny else PRODUCTS).items():
        for shape in shapes:
            count, rows, inner, columns = shape
            many = () if count == 1 else (count,)
            x, y = (jax.random.normal(jax.random.key(0), (*many, *size)) for size in ((rows, inner), (inner, columns)))
            name = f"products, {model}: {named(shape)}"
            facts = {"operations": IN_A_ROW * operations(shape)}
            cases.append(Case(name, OURS, timed(lambda x=x, y=y: run(x, y), IN_A_ROW), facts))
            if peer:
                cases.append(peer.case(name, TORCH, "product", left=x.shape, right=y.shape, times=IN_A_ROW))
    times, rows_found = raced(cases, options.rounds, options)
    found = {}
    for name, system in times:
        if system == TORCH:
            found[f"{name}, ours / torch"] = ratio(times[name, OURS], times[name, TORCH])
    return SuiteResult(rows_found, found)
