"""What caching the frozen prefix saves over the whole of a task, when the last third of the layers is adapted.

The layers below the first adapted one give the same for an example every time it is seen. With the cache they run once
per example, before training; without it in every step. A task is 1,500 examples, as in `clinc150`, and so many passes
over them: 2.1 are the default preset's 100 steps of 32, 6.4 the full preset's 300; 20 are nearer to what LoRA is
trained for on sets of this size (Hu et al. 2021, table 9: 25 to 80 on the small GLUE tasks). Steps, and the pass that
fills the cache, are timed apart and put together round by round.
"""

import jax
import numpy as np

from experiments.bench.steps import OURS, adapted_of, forms, stepper
from experiments.bench.subjects import KERNELS, Subject, minilm
from experiments.bench.timing import Case, Key, ratio, timed, total

EXAMPLES, STEPS_PER_PASS = 1500, 1500 / 32
PASSES = (2.1, 6.4, 20)
TOKENS = 32
BATCHES = 8
"""Of the batches that fill the cache, so many are timed."""
WITHOUT, WITH, FILL = (f"prefix cache: {what}" for what in ("step without", "step with", "filling it"))


def prefix_cases(tiny: bool) -> tuple[list[Case], float]:
    """The three cases, and the share of a task's examples that filling takes.

    Every kernel of the last third of the layers is adapted, so that all of it is trained through.
    """
    layers = 3 if tiny else 6
    first = layers - layers // 3
    tokens = 8 if tiny else TOKENS
    whole = minilm(tokens, tiny=tiny, layers=layers)
    from_there = minilm(tokens, tiny=tiny, layers=layers, first_layer=first)
    targets = rf"encoder/layer_({'|'.join(str(n) for n in range(first, layers))})/{KERNELS}"
    below = jax.jit(lambda params, inputs: from_there.model.apply({"params": params}, **inputs, method="prefix"))
    examples = BATCHES * next(iter(whole.inputs.values())).shape[0]
    kept = {"hidden": below(whole.params, whole.inputs), "attention_mask": whole.inputs["attention_mask"]}
    inside = Subject(whole.name, from_there.model, from_there.params, kept, whole.labels, whole.twin)
    method = forms()[2].method

    def fill() -> np.ndarray:
        return np.concatenate([np.asarray(below(whole.params, whole.inputs)) for _ in range(BATCHES)])

    cases = [Case(FILL, OURS, timed(fill), {"examples": examples})]
    for name, subject in ((WITHOUT, whole), (WITH, inside)):
        call, memory = stepper(subject, adapted_of(subject, targets, method))
        jax.block_until_ready(call())
        cases.append(Case(name, OURS, timed(call), {"temporary_bytes": int(memory.temp_size_in_bytes)}))
    return cases, examples / EXAMPLES


def prefix_ratios(times: dict[Key, dict[int, float]], share: float) -> dict[str, float]:
    """A whole task with the cache to one without it, for each number of passes.

    Args:
        times: of the three cases.
        share: how much of a task's examples `FILL` takes.
    """
    fill, without, cached = (times[name, OURS] for name in (FILL, WITHOUT, WITH))
    found = {"prefix cache: step with / without": ratio(cached, without)}
    for passes in PASSES:
        steps = passes * STEPS_PER_PASS
        pair = total((1 / share, fill), (steps, cached)), total((steps, without))
        found[f"prefix cache, {passes} passes: with / without, whole task"] = ratio(*pair)
    return found
