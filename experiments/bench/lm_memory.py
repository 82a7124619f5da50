"""Part `memory` of the suite `lm`: the most memory that a process holds which does train steps and nothing else.

Ours and PEFT's run in processes of their own that start for this, load the decoder, and do three steps; freed memory
goes back to the system. What the libraries themselves take is part of it, and so is what compiling takes.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import jax

from experiments.bench.commands import own_peak
from experiments.bench.decoders import CONFIGS, decoder, decoder_files, first_adapted, pattern_of
from experiments.bench.peer import SERVER, Peer
from experiments.bench.peers.server import PLAIN, serve
from experiments.bench.steps import OURS, adapted_of, forms, stepper
from experiments.bench.subjects import ALPHA, RANK
from experiments.bench.suite import Options, SuiteResult

PEFT = "PEFT"
STEPS = 3


class OwnStep:
    """A later task's step of `shared_a`, as a peer's kind."""

    def __init__(self, form: str, batch: int, tokens: int, targets: str) -> None:
        """Draws the decoder and compiles the step."""
        subject = decoder(form, batch, tokens)
        adapted = adapted_of(subject, pattern_of(CONFIGS[form], targets), forms()[2].method)
        self.call, memory = stepper(subject, adapted)
        self.facts: dict[str, Any] = {"temporary_bytes": int(memory.temp_size_in_bytes)}

    def run(self) -> dict[str, Any]:
        """One step, and the most memory that the process has held so far."""
        began = time.perf_counter()
        jax.block_until_ready(self.call())
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "peak_bytes": own_peak()}


def peak(python: Path, threads: int, server: tuple[str, ...], kind: str, **spec: Any) -> dict[str, Any]:
    """Seconds of a step and the peak memory of a process that starts for this."""
    with Peer(python, threads, server) as process:
        facts = process.make("step", kind, **spec)
        runs = [process.ask("run", key="step") for _ in range(STEPS)]
    return {**facts, **runs[-1]}


def memory_part(form: str, batch: int, tokens: int, targets: str, peer: Peer | None, options: Options) -> SuiteResult:
    """The part for one set of targets."""
    prefix = f"memory, {batch} x {tokens}, {targets}, float32: "
    threads = len(os.sched_getaffinity(0))
    options.notify(f"{prefix}a process for each side")
    own: dict[str, Any] = {"form": form, "batch": batch, "tokens": tokens, "targets": targets}
    found = {OURS: peak(Path(sys.executable), threads, OWN, "step", **own)}
    if peer:
        files = decoder_files(decoder(form, batch, tokens), options.folder / "lm-memory")
        first = first_adapted(CONFIGS[form], targets)
        spec: dict[str, Any] = {"files": files, "first_layer": first, "rank": RANK, "alpha": ALPHA}
        found[PEFT] = peak(peer.python, threads, (*SERVER, PLAIN), "decoder step", **spec)
    rows = [
        {
            "case": f"{prefix}step",
            "system": system,
            "median_s": one.pop("seconds"),
            "iqr_s": 0.0,
            "repetitions": 1,
            **one,
        }
        for system, one in found.items()
    ]
    ratios = {}
    if peer:
        ratios[f"{prefix}peak memory, ours / PEFT"] = found[OURS]["peak_bytes"] / found[PEFT]["peak_bytes"]
    return SuiteResult(rows, ratios)


OWN = ("-m", "experiments.bench.lm_memory")

if __name__ == "__main__":
    serve({"step": OwnStep}, sys.stdin, sys.stdout)
