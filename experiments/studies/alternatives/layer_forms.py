"""Forms of one layer's products: of a batch of different tasks, and of three adapters on one input.

One layer of the text encoder with 32 tokens (FFN-up, 384 to 1536) and one attention of the vision transformer (192 to
192, 65 tokens), with their base products, rank 8, batch 32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.bench.steps import OURS, RARELY, adapted_of, forms, forward_case, stepper
from experiments.bench.subjects import BATCH, EVERY, RANK, minilm, vit
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Rounds, ratio, timed
from experiments.studies.alternatives.equal import hold_equal
from share_jax.bank.slots import gather
from share_jax.ops.products import down_product, up_product
from share_jax.typing import Array

MIXES, STORED = (1, 4, 16, 32), (10, 100, 1000)
LAYERS = 6 * (4 * 384 + 1536 + 384) / 1536
"""The columns of all adapted kernels of the text encoder, in layers such as this one: 13.5."""


def gathered(h: Array, stack: Array, ids: Array) -> Array:
    """The library's form: each example's own (r, d_out), then a batched product."""
    return up_product(h, gather(stack, ids))


def one_hot(h: Array, stack: Array, ids: Array) -> Array:
    """The slots by a product of one-hot rows with the whole stack (T, r d_out)."""
    rows = jax.nn.one_hot(ids, stack.shape[0], dtype=h.dtype)
    return up_product(h, (rows @ stack.reshape(stack.shape[0], -1)).reshape(-1, *stack.shape[1:]))


def grouped(h: Array, stack: Array, ids: Array) -> Array:
    """Examples sorted by task, one ragged product over the groups of all stored tasks, and sorted back."""
    order = jnp.argsort(ids)
    rows = h[order].reshape(-1, h.shape[-1])
    sizes = jnp.bincount(ids, length=stack.shape[0]).astype(jnp.int32) * h.shape[1]
    out = jax.lax.ragged_dot(rows, stack, sizes).reshape(*h.shape[:2], -1)
    return out[jnp.argsort(order)]


WAYS = {"gathered": gathered, "one-hot": one_hot, "sorted groups": grouped}


def layer(up: Callable[[Array, Array, Array], Array]) -> Callable[..., Array]:
    """The whole layer, jitted: x @ W + (x @ A) B[ids]."""
    return jax.jit(lambda x, kernel, a, stack, ids: down_product(x, kernel) + up(down_product(x, a), stack, ids))


def mixed_part(options: Options) -> SuiteResult:
    """Every way for 1, 4, 16 and 32 different tasks of a batch, out of 10, 100 and 1,000 that are stored."""
    batch, n, d_in, d_out = (4, 3, 8, 16) if options.tiny else (BATCH, 32, 384, 1536)
    mixes, counts = ((1, 4), (4,)) if options.tiny else (MIXES, STORED)
    keys = jax.random.split(jax.random.key(0), 4)
    x, kernel = jax.random.normal(keys[0], (batch, n, d_in)), jax.random.normal(keys[1], (d_in, d_out))
    a = jax.random.normal(keys[2], (d_in, RANK))
    ways = {name: layer(up) for name, up in WAYS.items()}
    subject = minilm(8 if options.tiny else 32, tiny=options.tiny)
    cases = [forward_case(subject, "mixed batch: ")]
    cases.append(Case("mixed batch: layer without update", OURS, timed(lambda: _plain(x, kernel))))
    for stored in counts:
        stack = jax.random.normal(keys[3], (stored, RANK, d_out))
        for tasks in (mix for mix in mixes if mix <= stored):
            ids = jnp.array([stored * (row % tasks) // tasks for row in range(batch)], jnp.int32)
            args = x, kernel, a, stack, ids
            want = ways["gathered"](*args)
            for name, run in ways.items():
                where = _mixed(stored, tasks, name)
                hold_equal(where, run(*args), want)
                slow = name == "sorted groups" and stored > 10
                cases.append(
                    Case(where, OURS, timed(lambda run=run, args=args: run(*args)), every=RARELY if slow else 1)
                )
    times, rows = raced(cases, options.rounds, options)
    forward = times["mixed batch: frozen forward", OURS]
    found = {}
    for stored in counts:
        for tasks in (mix for mix in mixes if mix <= stored):
            own = {name: times[_mixed(stored, tasks, name), OURS] for name in WAYS}
            for name in ("one-hot", "sorted groups"):
                where = _mixed(stored, tasks, name)
                found[f"{where} / gathered"] = ratio(own[name], own["gathered"])
                found[f"{where}, saved of the forward pass"] = saved(own["gathered"], own[name], forward, LAYERS)
    return SuiteResult(rows, found)


_plain = jax.jit(down_product)


def _mixed(stored: int, tasks: int, way: str) -> str:
    return f"mixed batch, {stored:,} stored: {tasks} {'task' if tasks == 1 else 'tasks'}, {way}"


def saved(ours: Rounds, other: Rounds, whole: Rounds, layers: float) -> float:
    """What so many layers would save of the whole if they had the other form; negative where it costs."""
    return ratio({n: layers * (ours[n] - other[n]) for n in ours if n in other}, whole)


def separately(x: Array, kernels: list[Array], downs: list[Array], ups: list[Array]) -> list[Array]:
    """Three layers on one input, each with an adapter of its own: the library's form."""
    return [
        down_product(x, kernel) + up_product(down_product(x, a), b)
        for kernel, a, b in zip(kernels, downs, ups, strict=True)
    ]


def together(x: Array, kernels: list[Array], downs: list[Array], ups: list[Array]) -> list[Array]:
    """The same with one product x @ [A_q A_k A_v] of 3 r columns."""
    parts = jnp.split(down_product(x, jnp.concatenate(downs, axis=1)), len(downs), axis=-1)
    return [down_product(x, kernel) + up_product(h, b) for kernel, h, b in zip(kernels, parts, ups, strict=True)]


def slopes_separately(x: Array, downs: list[Array], above: list[Array]) -> list[Array]:
    """The gradients of three B's from those of the layers' outputs: all that a later task's step adds to its floor."""
    return [_slope(down_product(x, a), dy) for a, dy in zip(downs, above, strict=True)]


def slopes_together(x: Array, downs: list[Array], above: list[Array]) -> list[Array]:
    """The same with one product of 3 r columns."""
    parts = jnp.split(down_product(x, jnp.concatenate(downs, axis=1)), len(downs), axis=-1)
    return [_slope(h, dy) for h, dy in zip(parts, above, strict=True)]


def _slope(h: Array, above: Array) -> Array:
    _, back = jax.vjp(lambda b: up_product(h, b), jnp.zeros((h.shape[-1], above.shape[-1]), h.dtype))
    return back(above)[0]


def projections_part(options: Options) -> SuiteResult:
    """Forward with one slot per example, where adapters stand beside their layers, and the gradients of the B's."""
    batch, n, d = (4, 3, 8) if options.tiny else (BATCH, 65, 192)
    keys = iter(jax.random.split(jax.random.key(1), 16))
    draw = lambda *shape: [jax.random.normal(next(keys), shape) / d**0.5 for _ in range(3)]  # noqa: E731
    x, kernels, downs = jax.random.normal(next(keys), (batch, n, d)), draw(d, d), draw(d, RANK)
    ups, above = draw(batch, RANK, d), draw(batch, n, d)
    subject = vit(tiny=options.tiny)
    call, _ = stepper(subject, adapted_of(subject, EVERY, forms()[2].method))
    cases = [
        forward_case(subject, "query, key, value: "),
        Case("query, key, value: whole step", OURS, timed(call)),
    ]
    tried = {
        "forward, different tasks": (jax.jit(separately), jax.jit(together), (x, kernels, downs, ups)),
        "gradients, one task": (jax.jit(slopes_separately), jax.jit(slopes_together), (x, downs, above)),
    }
    for what, (ours, other, args) in tried.items():
        hold_equal(f"query, key, value, {what}", other(*args), ours(*args))
        for name, run in (("three products", ours), ("one product", other)):
            case = f"query, key, value: {what}, {name}"
            cases.append(Case(case, OURS, timed(lambda run=run, args=args: run(*args))))
    times, rows = raced(cases, options.rounds, options)
    found, layers = {}, subject.twin["num_layers"]
    for what, whole in (("forward, different tasks", "frozen forward"), ("gradients, one task", "whole step")):
        ours, other = (times[f"query, key, value: {what}, {name}", OURS] for name in ("three products", "one product"))
        found[f"query, key, value: {what}, one product / three"] = ratio(other, ours)
        of = times[f"query, key, value: {whole}", OURS]
        found[f"query, key, value: {what}, saved of the {whole}"] = saved(ours, other, of, layers)
    return SuiteResult(rows, found)
