"""Suite `gpu`: train steps, mixed batches, decoding and the fast tests on a GPU, beside PEFT's on torch.

    python -m experiments.bench gpu --json runs/bench/gpu.json

One command of less than ten minutes for a CUDA image that has jax, flax, optax, orbax-checkpoint, chex, safetensors,
tokenizers, torch, transformers and peft in one environment; nothing is fetched. Forms are those of ViT-B/16,
SmolLM2-135M and a Llama of 1B parameters, weights are drawn. In bfloat16: a decoder's parameters are of that type, the
ViT's are float32 on both sides, in torch by automatic mixed precision. Parts, for `--only`: `step, vit-b` and so on,
`mixed`, `decode`, `tests`. `--tiny` runs all but the tests on whatever device there is.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from experiments.bench.decoders import ALL_LAYERS, CONFIGS, decoder, decoder_files, pattern_of
from experiments.bench.lm_decode import decode_part
from experiments.bench.model_twins import twin_files
from experiments.bench.peer import Peer
from experiments.bench.serve import named, our_cases
from experiments.bench.steps import OURS, forms, step_case
from experiments.bench.subjects import ALPHA, EVERY, RANK, Subject, vit, vit_b
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.tests import PYTEST, command, counted
from experiments.bench.timing import Case, Key, ratio
from share_jax.errors import ShareError, message

PEFT, COMPILED = "PEFT", "LoRA, compiled"
LATER = "shared_a later task"
STORED = (10, 100, 1000)
PEER_STORED = 32
TEST_SECONDS = 240
"""After which the fast tests are stopped, so that the suite ends within ten minutes."""


def device_of(options: Options) -> str:
    """torch's name of the device that both sides use.

    Raises:
        ShareError: there is no GPU, and this is no smoke test.
    """
    found = jax.devices()[0]
    if found.platform == "gpu":
        return "cuda"
    if not options.tiny:
        fix = "run it where jax.devices() has a GPU, or pass --tiny for a smoke test"
        raise ShareError(message("device", got=found.platform, expected="a GPU", fix=fix))
    return "cpu"


def peer_step(subject: Subject, peer: Peer, prefix: str, options: Options, device: str) -> list[Case]:
    """PEFT's step on every kernel, as it is and compiled."""
    folder = options.folder / prefix.partition(":")[0].replace(", ", "-").replace(" ", "-")
    spec: dict[str, Any] = {"rank": RANK, "alpha": ALPHA, "dtype": "bfloat16", "device": device}
    if "model" in subject.twin:
        kind, spec = "step", {**spec, "files": twin_files(subject, folder), "targets": EVERY}
    else:
        kind, spec = "decoder step", {**spec, "files": decoder_files(subject, folder, drawn=True), "first_layer": 0}
    cases = [peer.case(f"{prefix}LoRA", PEFT, kind, **spec)]
    if device == "cuda":
        cases.append(peer.case(f"{prefix}{COMPILED}", PEFT, kind, compiled=True, **spec))
    return cases


def targets_of(subject: Subject) -> str:
    """All kernels of the layers."""
    model: Any = subject.model
    return EVERY if "model" in subject.twin else pattern_of(model.config, ALL_LAYERS)


def step_part(name: str, subject: Subject, peer: Peer | None, options: Options, device: str) -> SuiteResult:
    """A later task's step, and one of a LoRA of its own, beside PEFT's."""
    prefix = f"step, {name}, bfloat16: "
    chosen = [form for form in forms() if form.name in (LATER, "separate LoRA")]
    cases = [step_case(subject, targets_of(subject), form, prefix) for form in chosen]
    if peer:
        cases += peer_step(subject, peer, prefix, options, device)
    times, rows = raced(cases, options.rounds, options)
    if peer:
        peer.drop([f"{case} {system}" for case, system in times])
    later = times[prefix + LATER, OURS]
    found = {f"{prefix}{LATER} / separate LoRA": ratio(later, times[f"{prefix}separate LoRA", OURS])}
    for what in ("LoRA", COMPILED):
        if theirs := times.get((prefix + what, PEFT)):
            found[f"{prefix}{LATER} / PEFT {what}"] = ratio(later, theirs)
    return SuiteResult(rows, found)


def mixed_part(form: str, subject: Subject, peer: Peer | None, options: Options, device: str) -> SuiteResult:
    """A batch of rows of one task and of as many as there are rows, with 10 to 1,000 stored; ours and PEFT's loop."""
    prefix, size = f"mixed, {form}, bfloat16: ", len(subject.labels)
    targets, several = pattern_of(CONFIGS[form], ALL_LAYERS), (2, 4) if options.tiny else STORED
    cases: list[Case] = []
    for stored in several:
        mixes = (1, size) if stored >= size else (1,)
        own = our_cases(subject, targets, stored, forms()[2].method, mixes)
        memory = jax.devices()[0].memory_stats() or {}
        for case in own:
            facts = {**case.facts, "device_bytes": memory["bytes_in_use"]} if "bytes_in_use" in memory else case.facts
            title = case.case.rpartition(": shared_a, ")[2]
            cases.append(Case(f"{prefix}{title}, {stored:,} stored", OURS, case.run, facts))
    if peer:
        files = decoder_files(subject, options.folder / "mixed", drawn=True)
        stored = size if options.tiny else PEER_STORED
        spec: dict[str, Any] = {"files": files, "stored": stored, "first_layer": 0, "rank": RANK, "alpha": ALPHA}
        facts = peer.make("mixed", "decoder mixed", dtype="bfloat16", device=device, **spec)
        for tasks in (1, size):
            cases.append(Case(prefix + named(tasks), PEFT, peer.runner("mixed", tasks=tasks), facts))
    times, rows = raced(cases, options.rounds, options)
    if peer:
        peer.drop(["mixed"])
    return SuiteResult(rows, mixed_ratios(times, prefix, size, several))


def mixed_ratios(
    times: dict[Key, dict[int, float]], prefix: str, size: int, several: Sequence[int]
) -> dict[str, float]:
    """Many tasks to one, many stored to few, and ours to PEFT's."""

    def ours(tasks: int, stored: int) -> dict[int, float]:
        return times[f"{prefix}{named(tasks)}, {stored:,} stored", OURS]

    few, many = several[0], several[-1]
    found = {
        f"{named(size)} / one task": ratio(ours(size, many), ours(1, many)),
        f"one task, {many:,} stored / {few:,} stored": ratio(ours(1, many), ours(1, few)),
    }
    for tasks in (1, size):
        if theirs := times.get((prefix + named(tasks), PEFT)):
            found[f"{named(tasks)}, ours / PEFT"] = ratio(ours(tasks, many), theirs)
    return {prefix + name: value for name, value in found.items()}


def tests_part(options: Options) -> SuiteResult:
    """The whole fast test suite on the GPU, in as many processes as half the processors."""
    workers = max(1, (os.cpu_count() or 2) // 2)
    within = (
        "-c",
        _WITHIN,
        str(TEST_SECONDS),
        sys.executable,
        *PYTEST,
        "-n",
        str(workers),
        "--dist",
        "loadfile",
        "tests",
    )
    options.notify(f"the fast tests in {workers} processes, {TEST_SECONDS} s at most")
    found = command(within)
    row = {
        "case": "tests: the fast suite",
        "system": OURS,
        "median_s": found["seconds"],
        "iqr_s": 0.0,
        "repetitions": 1,
        "cpu_s": found["cpu_s"],
        **counted(found["last"]),
    }
    return SuiteResult([row], {}, {"tests": found["last"]})


_WITHIN = """
import subprocess, sys
try:
    sys.exit(subprocess.run(sys.argv[2:], timeout=float(sys.argv[1])).returncode)
except subprocess.TimeoutExpired:
    print(f"stopped after {sys.argv[1]} s")
    sys.exit(124)
"""


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite, one part after another.

    Raises:
        ShareError: there is no GPU, and this is no smoke test.
    """
    device, parts = device_of(options), list[SuiteResult]()
    subjects: dict[str, Callable[[], Subject]] = {
        "vit-b": lambda: vit_b(64, "bfloat16"),
        "smollm2-135m": lambda: decoder("smollm2-135m", 16, 512, "bfloat16"),
        "llama-1b": lambda: decoder("llama-1b", 4, 512, "bfloat16"),
    }
    if options.tiny:
        subjects = {"vit": lambda: vit("bfloat16", tiny=True), "tiny": lambda: decoder("tiny", 2, 8, "bfloat16")}
    for name, made in subjects.items():
        if options.takes(f"step, {name}, bfloat16"):
            parts.append(step_part(name, made(), peer, options, device))
    form = "tiny" if options.tiny else "smollm2-135m"
    if options.takes(f"mixed, {form}, bfloat16"):
        subject = decoder(form, *((2, 8) if options.tiny else (32, 128)), "bfloat16")
        parts.append(mixed_part(form, subject, peer, options, device))
    if options.takes("decode, bfloat16"):
        parts.append(decode_part(form, peer, options, dtype="bfloat16", device=device))
    if options.takes("tests") and not options.tiny:
        parts.append(tests_part(options))
    return merged_results(parts)
