"""Forms of a decoder's products when it writes tokens: few rows, so that most of the time goes into reading kernels.

The kernels of ten feed-forward blocks of SmolLM2-135M, one behind another; they are more than a processor's caches
hold, as all kernels of a decoder are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.steps import OURS, first_call
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, ratio, timed
from experiments.studies.alternatives.equal import hold_equal
from share_jax.typing import Array

ROWS = (1, 4, 8, 32)
BLOCKS, WIDTH, INNER = 10, 576, 1536
LARGEST = 127
"""Of the codes of an int8 kernel."""

Product = Callable[[Array, Any], Array]


def whole(x: Array, kernel: Array) -> Array:
    """x @ W for all rows at once, as the decoder has it."""
    return x @ kernel


def row_by_row(x: Array, kernel: Array) -> Array:
    """A product with a vector for each row."""
    return jnp.concatenate([x[row : row + 1] @ kernel for row in range(x.shape[0])])


def out_of_codes(x: Array, coded: tuple[Array, Array]) -> Array:
    """The product with a kernel kept as int8 codes (d_in, d_out) and a scale (1, d_out) for each column."""
    codes, scale = coded
    return (x @ codes.astype(x.dtype)) * scale


def as_codes(kernel: Array) -> tuple[Array, Array]:
    """A kernel's codes and scales, rounded to the nearest.

    >>> codes, scale = as_codes(jnp.array([[2.54, 0.0], [-1.27, 1.0]]))
    >>> codes.tolist(), [round(x, 4) for x in scale[0].tolist()]
    ([[127, 0], [-64, 127]], [0.02, 0.0079])
    """
    scale = jnp.abs(kernel).max(axis=0, keepdims=True) / LARGEST
    return jnp.round(kernel / scale).astype(jnp.int8), scale


def chain(product: Product) -> Callable[[Array, list[Any]], Array]:
    """A compiled function: x through all kernels, one behind another."""

    def run(x: Array, kernels: list[Any]) -> Array:
        for number, kernel in enumerate(kernels):
            x = product(x, kernel)
            x = jax.nn.silu(x) if number % 2 == 0 else x / jnp.abs(x).max()
        return x

    return jax.jit(run)


def rows_part(options: Options) -> SuiteResult:
    """Every form at every number of rows; codes are held to the product with the kernels that they stand for."""
    width, inner, blocks = (8, 16, 1) if options.tiny else (WIDTH, INNER, BLOCKS)
    keys = jax.random.split(jax.random.key(0), 2 * blocks)
    shapes = [(width, inner), (inner, width)] * blocks
    kernels = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    codes = [as_codes(kernel) for kernel in kernels]
    meant = [own.astype(jnp.float32) * scale for own, scale in codes]
    cases = []
    for rows in ROWS:
        x = jax.random.normal(jax.random.key(rows), (rows, width))
        ways: dict[str, tuple[Any, Any, Any]] = {
            "one product": (chain(whole), kernels, kernels),
            "int8 codes": (chain(out_of_codes), codes, meant),
        }
        if rows > 1:
            ways["row by row"] = chain(row_by_row), kernels, kernels
        for name, (run, held, want) in ways.items():
            facts = {"first_call_s": first_call(lambda run=run, x=x, held=held: run(x, held))}
            hold_equal(f"few rows, {rows}, {name}", run(x, held), chain(whole)(x, want))
            call = timed(lambda run=run, x=x, held=held: run(x, held))
            cases.append(Case(f"few rows: {rows}, {name}", OURS, call, facts))
    times, found = raced(cases, options.rounds, options)
    ratios = {}
    for case in cases:
        prefix, _, name = case.case.rpartition(", ")
        if name != "one product":
            ratios[f"{case.case} / one product"] = ratio(times[case.key], times[f"{prefix}, one product", OURS])
    return SuiteResult(found, ratios)
