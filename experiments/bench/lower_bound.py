"""What any adapter method must pay, and how fast the machine is.

The floor of a train step: the frozen forward pass, and the backward pass to the outputs of the first block's targeted
layers, by a perturbation that is added to them. Every adapter needs those gradients or later ones, none needs more of
the base model; what an adapter method computes of its own comes on top.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.bench.steps import OURS, first_call
from experiments.bench.subjects import Subject
from experiments.bench.timing import Case, timed
from share_jax.linen.adapted_model import Adapted

SIDE = 2048
"""Rows and columns of the matrices whose product is timed."""

STREAM = 2**26
"""Elements of the array that the memory rate is measured with: 256 MiB, far beyond any cache."""


def first_block(adapted: Adapted) -> tuple[tuple[str, ...], ...]:
    """Module paths of the targets in the first block that has any.

    >>> sorted(["layer_10", "layer_2"], key=lambda name: [int(n) for n in re.findall("[0-9]+", name)])
    ['layer_2', 'layer_10']
    """

    def block(path: tuple[str, ...]) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", "/".join(path))]

    paths = [target.module_path for target in adapted.targets]
    least = min(block(path) for path in paths)
    return tuple(path for path in paths if block(path) == least)


def perturbed(model: nn.Module, noise: Mapping[str, Any], params: Any, inputs: Mapping[str, Any]) -> Any:
    """The model's output with something added to the outputs of some of its layers, by module path."""

    def add(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        path = "/".join(context.module.path)
        return out + noise[path] if context.method_name == "__call__" and path in noise else out

    with nn.intercept_methods(add):
        return model.apply({"params": params}, **inputs)


def outputs_of(subject: Subject, paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """Zeros of the shapes and types of the layers' outputs."""
    wanted, shapes = {"/".join(path) for path in paths}, {}

    def note(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and path in wanted:
            shapes[path] = jax.ShapeDtypeStruct(out.shape, out.dtype)
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(subject.model.apply, subject.base, **subject.inputs)
    return {path: jnp.zeros(shape.shape, shape.dtype) for path, shape in shapes.items()}


def floor_case(subject: Subject, adapted: Adapted, prefix: str) -> Case:
    """The floor of the adapted subject's train steps; its facts hold the operations that XLA counts in it."""
    noise = outputs_of(subject, first_block(adapted))

    def slope(noise: Any, params: Any, batch: Any) -> Any:
        def loss(noise: Any) -> Any:
            sums = subject.loss(perturbed(subject.model, noise, params, batch["inputs"]), batch)
            return sums.total / sums.weight

        return jax.value_and_grad(loss)(noise)

    run = jax.jit(slope)
    call = lambda: run(noise, subject.params, subject.batch)  # noqa: E731
    cost = run.lower(noise, subject.params, subject.batch).compile().cost_analysis()
    facts = {"first_call_s": first_call(call), "operations": float((cost or {}).get("flops", 0.0))}
    return Case(f"{prefix}floor", OURS, timed(call), facts)


def rate_cases(side: int = SIDE, elements: int = STREAM) -> list[Case]:
    """The machine's rates: a float32 matrix product, and an array far beyond the caches that is read and written.

    Facts: the product's operations, 2 side^3; the bytes that are moved, twice the array's.
    """
    matrix = jax.random.normal(jax.random.key(0), (side, side))
    array = jnp.ones(elements)
    product, pass_over = jax.jit(lambda x: x @ x), jax.jit(lambda x: 3 * x + 1)
    return [
        Case("matrix product", OURS, timed(lambda: product(matrix)), {"operations": 2.0 * side**3}),
        Case("pass over memory", OURS, timed(lambda: pass_over(array)), {"moved_bytes": 2.0 * 4 * elements}),
    ]
