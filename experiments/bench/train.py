"""Suite `train`: one train step in every form of ours, beside PEFT's LoRA on torch.

The same models with the same weights and inputs, rank, targets, optimizer (AdamW) and threads. Bars are read from
float32; bfloat16 (parameters float32, in torch by automatic mixed precision) has a quarter of the rounds.
"""

from pathlib import Path
from typing import Any

from experiments.bench.lower_bound import floor_case
from experiments.bench.model_twins import agreed_twin, twin_files
from experiments.bench.peer import Peer
from experiments.bench.steps import OURS, RARELY, adapted_of, forms, forward_case, full_case, step_case
from experiments.bench.subjects import ALPHA, EVERY, QUERY_VALUE, RANK, Subject, minilm, vit
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.timing import Case, Key, Rounds, ratio

PEFT, TORCH = "PEFT", "torch"


def subjects(dtype: str, tiny: bool) -> list[tuple[Subject, tuple[str, ...]]]:
    """What is trained, each with the sets of targets."""
    if tiny:
        return [(vit(dtype, tiny=True), (QUERY_VALUE,))] if dtype == "float32" else []
    both = (EVERY, QUERY_VALUE) if dtype == "float32" else (EVERY,)
    return [(vit(dtype), both), (minilm(32, dtype), both), (minilm(128, dtype), (EVERY,))]


def cases_of(
    subject: Subject, several: tuple[str, ...], dtype: str, peer: Peer | None, folder: Path, tiny: bool
) -> tuple[list[Case], list[str]]:
    """The cases of one subject, those of the model alone first; and the names that the sets of targets go under."""
    whole = f"{subject.name}, {dtype}: "
    cases, files = [forward_case(subject, whole), full_case(subject, whole)], {}
    if peer:
        files = agreed_twin(subject, peer, folder) if dtype == "float32" else twin_files(subject, folder)
        cases.append(peer.case(f"{whole}frozen forward", TORCH, "forward", files=files, dtype=dtype))
        cases.append(peer.case(f"{whole}full fine-tune", TORCH, "step", every=RARELY, files=files, dtype=dtype))
    prefixes = []
    for targets in several:
        prefix = f"{subject.name}, {targets}, {dtype}: "
        prefixes.append(prefix)
        cases += [step_case(subject, targets, form, prefix) for form in forms() if form.barred or not tiny]
        cases.append(floor_case(subject, adapted_of(subject, targets, forms()[2].method), prefix))
        if peer:
            options: dict[str, Any] = {"targets": targets, "rank": RANK, "alpha": ALPHA, "dtype": dtype}
            cases.append(peer.case(f"{prefix}LoRA", PEFT, "step", files=files, **options))
    return cases, prefixes


def ratios_of(times: dict[Key, dict[int, float]], prefix: str, whole: str) -> dict[str, float]:
    """Our forms against each other, the frozen forward pass, the floor, and the peers."""

    def ours(name: str) -> Rounds:
        return times[prefix + name, OURS]

    later, separate = ours("shared_a later task"), ours("separate LoRA")
    forward, full = times[f"{whole}frozen forward", OURS], times[f"{whole}full fine-tune", OURS]
    found = {
        "shared_a later task / separate LoRA": ratio(later, separate),
        "shared_a later task / floor": ratio(later, ours("floor")),
        "shared_a later task / frozen forward": ratio(later, forward),
        "shared_a later task / full fine-tune": ratio(later, full),
    }
    present = [form.name for form in forms() if (prefix + form.name, OURS) in times]
    found |= {f"{n} / separate LoRA": ratio(ours(n), separate) for n in present if n.startswith("share ")}
    if peft := times.get((f"{prefix}LoRA", PEFT)):
        found |= {f"{name} / PEFT LoRA": ratio(ours(name), peft) for name in (*present, "floor")}
        found["frozen forward, ours / torch"] = ratio(forward, times[f"{whole}frozen forward", TORCH])
        found["full fine-tune, ours / torch"] = ratio(full, times[f"{whole}full fine-tune", TORCH])
    return {prefix + name: value for name, value in found.items()}


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite, one subject after another: what is raced together is in memory together."""
    parts = []
    for dtype in ("float32", "bfloat16"):
        rounds = options.rounds if dtype == "float32" else max(1, options.rounds // RARELY)
        for subject, every in subjects(dtype, options.tiny):
            several = tuple(name for name in every if options.takes(f"{subject.name}, {name}, {dtype}"))
            if not several:
                continue
            folder = options.folder / subject.name.replace(" ", "-").replace(",", "")
            cases, prefixes = cases_of(subject, several, dtype, peer, folder, options.tiny)
            times, rows = raced(cases, rounds, options)
            found: dict[str, float] = {}
            for prefix in prefixes:
                found |= ratios_of(times, prefix, f"{subject.name}, {dtype}: ")
            parts.append(SuiteResult(rows, found))
            if peer:
                peer.drop([f"{case} {system}" for case, system in times])
    return merged_results(parts)
