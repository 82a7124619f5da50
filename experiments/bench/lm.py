"""Suite `lm`: a decoder's train step, a whole task of it, its memory, and its greedy decoding, beside PEFT's on torch.

SmolLM2-135M's form with drawn weights, the same on both sides; rank, targets, optimizer (AdamW), batches, learnt places
and threads are the same, too, and both sides compute logits of the learnt places alone. In bfloat16 parameters and
products are of that type, adapters float32. Parts, for `--only`: `step, 8 x 128, all layers, float32` and so on;
`task`, the last ten layers with what lies below computed once per example; `memory`; `decode`; `llama.cpp`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.bench.decoders import (
    ALL_LAYERS,
    LAST_TEN,
    agreed_decoder,
    decoder,
    decoder_files,
    first_adapted,
    pattern_of,
)
from experiments.bench.lm_decode import decode_part
from experiments.bench.lm_llama_cpp import PACKAGE, llama_cpp_part
from experiments.bench.lm_memory import memory_part
from experiments.bench.lower_bound import floor_case
from experiments.bench.peer import Peer
from experiments.bench.steps import OURS, RARELY, adapted_of, first_call, forms, forward_case, step_case, stepper
from experiments.bench.subjects import ALPHA, RANK, Subject
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.timing import Case, Key, Rounds, ratio, timed, total
from share_jax.linen.prefix import linen_prefix
from share_jax.train.prefix_cache import PrefixCache

PEFT, TORCH = "PEFT", "torch"
LATER = "shared_a later task"
PASSES = (2, 6, 20)
"""Over a task's examples: 2 are the default of `share-jax learn` for many examples, and more for few."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: a form's name, and batches as (rows, tokens), the first of which has every part."""

    form: str
    batches: tuple[tuple[int, int], ...]


SMOLLM2, TINY = Sizes("smollm2-135m", ((8, 128), (16, 64))), Sizes("tiny", ((4, 8),))


def part_name(part: str, subject: Subject, targets: str, dtype: str) -> str:
    """A part's name, as `--only` searches it."""
    return f"{part}, {subject.name.partition(', ')[2]}, {targets}, {dtype}"


def peer_step(peer: Peer, case: str, files: dict[str, Any], subject: Subject, targets: str, **options: Any) -> Case:
    """PEFT's step on the same kernels."""
    model: Any = subject.model
    first = first_adapted(model.config, targets)
    return peer.case(case, PEFT, "decoder step", files=files, first_layer=first, rank=RANK, alpha=ALPHA, **options)


def step_part(subject: Subject, targets: str, dtype: str, peer: Peer | None, options: Options) -> SuiteResult:
    """Our forms, the floor and PEFT's step on one batch."""
    prefix = f"{part_name('step', subject, targets, dtype)}: "
    model: Any = subject.model
    pattern = pattern_of(model.config, targets)
    chosen = [form for form in forms() if not options.tiny or form.name in (LATER, "separate LoRA")]
    cases = [replace(step_case(subject, pattern, form, prefix), every=every(form.name)) for form in chosen]
    cases.append(floor_case(subject, adapted_of(subject, pattern, forms()[2].method), prefix))
    cases.append(replace(forward_case(subject, prefix), every=RARELY))
    if peer:
        folder = options.folder / f"lm-{dtype}"
        files = agreed_decoder(subject, peer, folder) if dtype == "float32" else decoder_files(subject, folder)
        cases.append(peer_step(peer, f"{prefix}LoRA", files, subject, targets, dtype=dtype))
        forward = f"{prefix}frozen forward"
        cases.append(peer.case(forward, TORCH, "decoder forward", every=RARELY, files=files, dtype=dtype))
    times, rows = raced(cases, rounds_of(options, dtype), options)
    if peer:
        peer.drop([f"{case} {system}" for case, system in times])
    return SuiteResult(rows, step_ratios(times, prefix))


def every(form: str) -> int:
    """Bars are read from a later task alone."""
    return 1 if form == LATER else RARELY


def rounds_of(options: Options, dtype: str) -> int:
    """Bars are read from float32."""
    return options.rounds if dtype == "float32" else max(1, options.rounds // RARELY)


def step_ratios(times: dict[Key, dict[int, float]], prefix: str) -> dict[str, float]:
    """Our forms to the floor and to PEFT's step."""
    ours = {case.removeprefix(prefix): found for (case, system), found in times.items() if system == OURS}
    found = {f"{LATER} / floor": ratio(ours[LATER], ours["floor"])}
    if "separate LoRA" in ours:
        found[f"{LATER} / separate LoRA"] = ratio(ours[LATER], ours["separate LoRA"])
    if peft := times.get((f"{prefix}LoRA", PEFT)):
        names = [name for name in ours if name != "frozen forward"]
        found |= {f"{name} / PEFT LoRA": ratio(ours[name], peft) for name in names}
        theirs = times[f"{prefix}frozen forward", TORCH]
        found["frozen forward, ours / torch"] = ratio(ours["frozen forward"], theirs)
    return {prefix + name: value for name, value in found.items()}


def cut_at(subject: Subject, first: int) -> tuple[Subject, PrefixCache]:
    """The decoder cut before a layer, with what lies below computed of its batch, and the cache that computed it."""
    whole: Any = subject.model
    model = whole.clone(first_layer=first)
    rows = len(subject.inputs["input_ids"])
    cache = PrefixCache(linen_prefix(model), subject.base, rows=rows)
    below = {name: subject.inputs[name] for name in ("input_ids", "attention_mask")}
    rest = {name: array for name, array in subject.inputs.items() if name != "input_ids"}
    return replace(subject, model=model, inputs={**rest, "hidden": jnp.asarray(cache.of(below))}), cache


def task_part(subject: Subject, dtype: str, peer: Peer | None, options: Options) -> SuiteResult:
    """A later task on the last ten layers: the step above the cut, and the filling of the cache, for one batch."""
    prefix = f"{part_name('task', subject, LAST_TEN, dtype)}: "
    model: Any = subject.model
    pattern = pattern_of(model.config, LAST_TEN)
    method = forms()[2].method
    whole = adapted_of(subject, pattern, method)
    cut, cache = cut_at(subject, first_adapted(model.config, LAST_TEN))
    hidden = np.asarray(cut.inputs["hidden"])
    inputs = lambda: {**cut.inputs, "hidden": hidden}  # noqa: E731
    call, memory = stepper(cut, replace(whole, model=cut.model), inputs=inputs)
    below = {name: np.asarray(subject.inputs[name]) for name in ("input_ids", "attention_mask")}
    facts = {"first_call_s": first_call(call), "temporary_bytes": int(memory.temp_size_in_bytes)}
    cases = [
        Case(f"{prefix}filling the cache", OURS, timed(lambda: cache.compute(below))),
        Case(f"{prefix}step with the cache", OURS, timed(call), facts),
        replace(step_case(subject, pattern, forms()[2], prefix), case=f"{prefix}step without", every=RARELY),
    ]
    if peer:
        files = agreed_decoder(subject, peer, options.folder / f"lm-{dtype}")
        cases.append(peer_step(peer, f"{prefix}LoRA", files, subject, LAST_TEN, dtype=dtype))
    times, rows = raced(cases, rounds_of(options, dtype), options)
    if peer:
        peer.drop([f"{prefix}LoRA {PEFT}"])
    return SuiteResult(rows, task_ratios(times, prefix))


def task_ratios(times: dict[Key, dict[int, float]], prefix: str) -> dict[str, float]:
    """A whole task with the cache to the same without, and to PEFT's."""
    fill, with_it, without = (
        times[prefix + what, OURS] for what in ("filling the cache", "step with the cache", "step without")
    )

    def whole(passes: int) -> Rounds:
        return total((1, fill), (passes, with_it))

    found = {f"{n} passes, with / without cache": ratio(whole(n), total((n, without))) for n in PASSES}
    if peft := times.get((f"{prefix}LoRA", PEFT)):
        found |= {f"{n} passes, whole task / PEFT": ratio(whole(n), total((n, peft))) for n in PASSES}
    return {prefix + name: value for name, value in found.items()}


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite, one part after another: what is raced together is in memory together."""
    sizes = TINY if options.tiny else SMOLLM2
    parts: list[SuiteResult] = []
    for dtype in ("float32", "bfloat16"):
        for subject in subjects(sizes, dtype):
            for targets in (ALL_LAYERS,) if options.tiny else (ALL_LAYERS, LAST_TEN):
                if options.takes(part_name("step", subject, targets, dtype)):
                    parts.append(step_part(subject, targets, dtype, peer, options))
    for subject in subjects(sizes, "float32"):
        if options.takes(part_name("task", subject, LAST_TEN, "float32")):
            parts.append(task_part(subject, "float32", peer, options))
    batch, tokens = sizes.batches[0]
    for targets in (LAST_TEN,) if options.tiny else (ALL_LAYERS, LAST_TEN):
        if options.takes(f"memory, {batch} x {tokens}, {targets}, float32"):
            parts.append(memory_part(sizes.form, batch, tokens, targets, peer, options))
    if options.takes("decode, float32"):
        parts.append(decode_part(sizes.form, peer, options))
    if peer and peer.versions.get(PACKAGE) and options.takes("llama.cpp, float32"):
        parts.append(llama_cpp_part(sizes.form, peer, options))
    return merged_results(parts)


def subjects(sizes: Sizes, dtype: str) -> Sequence[Subject]:
    """One for each batch; of the tiny form in float32 alone."""
    return [decoder(sizes.form, *batch, dtype) for batch in sizes.batches if sizes is not TINY or dtype == "float32"]
