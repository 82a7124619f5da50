"""Suite `prefix`: what caching the frozen prefix saves over a whole task, when the last third of the layers is adapted.

What lies below the first adapted kernel gives the same for an example every time it is seen. With the cache it runs
once per example, before training; without it in every step and evaluation. A task is 1,500 examples to learn from and
450 to be tested on, as in `clinc150`, evaluated once, and so many passes over the first: 2.1 are the default preset's
100 steps of 32, 6.4 the full preset's 300; 20 are nearer to what LoRA is trained for on sets of this size (Hu et al.
2021, table 9: 25 to 80 on the small GLUE tasks). Steps, evaluation steps and the filling of the cache are timed apart,
eight batches in a row as they follow each other in a task, gathered on the host, and put together round by round.

Two sets of kernels: all of the third, with the cut before its first layer; and its FFN-down kernels, as the text
presets adapt them, with the cut behind that layer's attention. And once more those, with the two products of the first
FFN-down kernel kept in place of its input (`share_jax.layers.projected`), as a frozen A allows: every task but the
first.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from experiments.backbones.bert_below_ffn_down import BertInside
from experiments.bench.peer import Peer
from experiments.bench.steps import OURS, adapted_of, forms, stepper
from experiments.bench.subjects import EVERY, FFN_DOWN, KERNELS, Subject, minilm
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Key, ratio, timed, total
from share_jax.linen.adapted_model import Adapted
from share_jax.linen.prefix import linen_prefix
from share_jax.train.prefix_cache import PrefixCache

TRAIN, TEST, BATCH = 1500, 450, 32
PASSES = (2.1, 6.4, 20)
TOKENS = 32
BATCHES = 8
"""So many batches are timed in a row: filled into the cache, learnt from, or evaluated."""
PRODUCTS = f"{FFN_DOWN}, products kept"
_TARGETS = {EVERY: KERNELS, FFN_DOWN: r"ffn_down/kernel", PRODUCTS: r"ffn_down/kernel"}
"""Patterns below a layer."""


def _name(targets: str, what: str) -> str:
    return f"prefix cache, {targets}: {what}"


def _evaluation(subject: Subject, adapted: Adapted, inputs: Callable[[], dict[str, Any]]) -> Callable[[], Any]:
    variables = {**subject.base, **adapted.init(jax.random.key(3), subject.params, 1)}
    run = jax.jit(lambda variables, inputs: adapted.apply(variables, **inputs, task_id=0))
    return lambda: run(variables, inputs())


def _gathered(kept: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """The inputs of one batch after another, examples in drawn order, gathered on the host as a task's batches are."""
    order = np.random.default_rng(0).permutation(len(kept["attention_mask"]))
    batches = itertools.cycle(np.split(order, BATCHES))

    def following() -> dict[str, Any]:
        rows = next(batches)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], kept)

    return following


def _cut(whole: Subject, adapted: Adapted, shared: Any, first: int, targets: str) -> tuple[Subject, PrefixCache]:
    """The subject cut in layer `first`, not yet with inputs of its own, and a cache of what lies below."""
    model: Any = whole.model
    size = len(whole.labels)
    if targets != PRODUCTS:
        model = model.clone(first_layer=first, first_sublayer="ffn" if targets == FFN_DOWN else "attention")
        return replace(whole, model=model), PrefixCache(linen_prefix(model), whole.base, rows=size)
    inside = BertInside(model.config, model.num_classes, first, model.dtype)
    path = f"encoder/layer_{first}/ffn_down/kernel"

    def prefix(variables: Any, inputs: Any) -> Any:
        below: Any = inside.apply({"params": variables["params"]}, **inputs, method="below")
        return {**below, "inner": adapted.project(path, variables, below["inner"])}

    return replace(whole, model=inside), PrefixCache(prefix, {**whole.base, "shared": shared}, rows=size)


def prefix_cases(tiny: bool) -> list[Case]:
    """Per set of targets: filling the cache, steps and evaluations, with it and without, `BATCHES` of each in a row."""
    layers = 3 if tiny else 6
    first = layers - layers // 3
    whole = minilm(8 if tiny else TOKENS, tiny=tiny, layers=layers)
    many = {name: np.tile(np.asarray(array), (BATCHES, 1)) for name, array in whole.inputs.items()}
    cases: list[Case] = []
    for targets, kernels in _TARGETS.items():
        pattern = rf"encoder/layer_({'|'.join(str(n) for n in range(first, layers))})/{kernels}"
        method = forms()[2].method
        plain = adapted_of(whole, pattern, method)
        shared = plain.init(jax.random.key(3), whole.params, 1)["shared"]
        cut, cache = _cut(whole, plain, shared, first, targets)
        inside = replace(
            cut, inputs={"hidden": cache.of(dict(whole.inputs)), "attention_mask": whole.inputs["attention_mask"]}
        )
        cases.append(Case(_name(targets, "filling it"), OURS, timed(lambda c=cache, m=many: c.compute(m))))
        below = {"hidden": cache.of(many), "attention_mask": many["attention_mask"]}
        for name, subject, adapted, kept in (
            ("without", whole, plain, many),
            ("with", inside, replace(plain, model=cut.model), below),
        ):
            inputs = _gathered(kept)
            call, memory = stepper(subject, adapted, inputs=inputs)
            jax.block_until_ready(call())
            facts = {"temporary_bytes": int(memory.temp_size_in_bytes)}
            cases.append(Case(_name(targets, f"steps {name}"), OURS, timed(call, BATCHES), facts))
            evaluation = timed(_evaluation(subject, adapted, inputs), BATCHES)
            cases.append(Case(_name(targets, f"evaluations {name}"), OURS, evaluation))
    return cases


def prefix_ratios(times: dict[Key, dict[int, float]]) -> dict[str, float]:
    """A whole task with the cache to one without it, for each number of passes.

    Args:
        times: of the cases.
    """
    found: dict[str, float] = {}
    for targets in _TARGETS:
        fill, *pairs = (
            times[_name(targets, what), OURS]
            for what in ("filling it", "steps with", "evaluations with", "steps without", "evaluations without")
        )
        found[_name(targets, "steps with / without")] = ratio(pairs[0], pairs[2])
        row = BATCH * BATCHES
        for passes in PASSES:
            steps, tests, fills = passes * TRAIN / row, TEST / row, (TRAIN + TEST) / row
            with_it = total((fills, fill), (steps, pairs[0]), (tests, pairs[1]))
            without = total((steps, pairs[2]), (tests, pairs[3]))
            found[_name(f"{targets}, {passes} passes", "with / without, whole task")] = ratio(with_it, without)
    return found


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite; it needs no peer."""
    times, rows = raced(prefix_cases(options.tiny), options.rounds, options)
    return SuiteResult(rows, prefix_ratios(times))
