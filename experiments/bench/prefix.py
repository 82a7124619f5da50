"""What caching the frozen prefix saves over the whole of a task, when the last third of the layers is adapted.

What lies below the first adapted kernel gives the same for an example every time it is seen. With the cache it runs
once per example, before training; without it in every step and evaluation. A task is 1,500 examples to learn from and
450 to be tested on, as in `clinc150`, evaluated once, and so many passes over the first: 2.1 are the default preset's
100 steps of 32, 6.4 the full preset's 300; 20 are nearer to what LoRA is trained for on sets of this size (Hu et al.
2021, table 9: 25 to 80 on the small GLUE tasks). Steps, evaluation steps and the filling of the cache are timed apart
and put together round by round.

Two sets of kernels: all of the third, with the cut before its first layer; and its FFN-down kernels, as the text
presets adapt them, with the cut behind that layer's attention.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from experiments.bench.steps import OURS, adapted_of, forms, stepper
from experiments.bench.subjects import EVERY, FFN_DOWN, KERNELS, Subject, minilm
from experiments.bench.timing import Case, Key, ratio, timed, total
from share_jax.nn.adapt import Adapted
from share_jax.train.prefix import PrefixCache, linen_prefix

TRAIN, TEST, BATCH = 1500, 450, 32
PASSES = (2.1, 6.4, 20)
TOKENS = 32
BATCHES = 8
"""Of the batches that fill the cache, so many are timed."""
_TARGETS = {EVERY: (KERNELS, "attention"), FFN_DOWN: (r"ffn_down/kernel", "ffn")}
"""Pattern below a layer, and the sublayer before which the frozen part ends."""


def _name(targets: str, what: str) -> str:
    return f"prefix cache, {targets}: {what}"


def _evaluation(subject: Subject, adapted: Adapted) -> Callable[[], Any]:
    variables = {**subject.base, **adapted.init(jax.random.key(3), subject.params, 1)}
    run = jax.jit(lambda variables, inputs: adapted.apply(variables, **inputs, task_id=0))
    return lambda: run(variables, subject.inputs)


def prefix_cases(tiny: bool) -> list[Case]:
    """Per set of targets: filling the cache for `BATCHES` batches, and a step and an evaluation with and without it."""
    layers = 3 if tiny else 6
    first = layers - layers // 3
    tokens = 8 if tiny else TOKENS
    cases: list[Case] = []
    for targets, (below, sublayer) in _TARGETS.items():
        whole = minilm(tokens, tiny=tiny, layers=layers)
        model: Any = minilm(tokens, tiny=tiny, layers=layers, first_layer=first).model
        cut = replace(whole, model=model.clone(first_sublayer=sublayer))
        size = len(whole.labels)
        cache = PrefixCache(linen_prefix(cut.model), whole.base, rows=size)
        many = {name: np.tile(np.asarray(array), (BATCHES, 1)) for name, array in whole.inputs.items()}
        cases.append(Case(_name(targets, "filling it"), OURS, timed(lambda c=cache, m=many: c.compute(m))))
        hidden = cache.of(dict(whole.inputs))
        inside = replace(cut, inputs={"hidden": hidden, "attention_mask": whole.inputs["attention_mask"]})
        pattern = rf"encoder/layer_({'|'.join(str(n) for n in range(first, layers))})/{below}"
        for name, subject in (("without", whole), ("with", inside)):
            adapted = adapted_of(subject, pattern, forms()[2].method)
            call, memory = stepper(subject, adapted)
            jax.block_until_ready(call())
            facts = {"temporary_bytes": int(memory.temp_size_in_bytes)}
            cases.append(Case(_name(targets, f"step {name}"), OURS, timed(call), facts))
            cases.append(Case(_name(targets, f"evaluation {name}"), OURS, timed(_evaluation(subject, adapted))))
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
            for what in ("filling it", "step with", "evaluation with", "step without", "evaluation without")
        )
        found[_name(targets, "step with / without")] = ratio(pairs[0], pairs[2])
        for passes in PASSES:
            steps, tests = passes * TRAIN / BATCH, TEST / BATCH
            fills = (TRAIN + TEST) / (BATCH * BATCHES)
            with_it = total((fills, fill), (steps, pairs[0]), (tests, pairs[1]))
            without = total((steps, pairs[2]), (tests, pairs[3]))
            found[_name(f"{targets}, {passes} passes", "with / without, whole task")] = ratio(with_it, without)
    return found
