"""What `share_jax.runtime.malloc.keep_freed` saves: one train step with it and without, in turn, each in a process of
its own.

    python -m experiments.bench memory --rounds 20

For the vision transformer and for the text encoder with 32 tokens, `shared_a` on all kernels, later task, float32: the
median seconds of both, the median of the rounds' ratios, how many pages the system mapped in a step, and the most
memory that either process held.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from experiments.bench.commands import own_peak
from experiments.bench.timing import ratio

ROOT = Path(__file__).parents[2]
WAYS = ("plain", "kept")
SUBJECTS = ("vit", "minilm")


def child(way: str, name: str) -> None:
    """Runs a step for each line of the input; answers with seconds, pages mapped, and the largest size in MB."""
    if way == "kept":
        from share_jax.runtime.malloc import keep_freed

        keep_freed()
    from experiments.bench.steps import forms, step_case
    from experiments.bench.subjects import EVERY, minilm, vit

    form = next(form for form in forms() if form.name == "shared_a later task")
    case = step_case(vit() if name == "vit" else minilm(32), EVERY, form, "")
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = case.run()
        after = resource.getrusage(resource.RUSAGE_SELF)
        told = {"seconds": seconds, "mapped": after.ru_minflt - before, "megabytes": own_peak() / 2**20}
        print(json.dumps(told), flush=True)


def race(name: str, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What both processes answer in each round; before the first round each runs twice."""
    words = [sys.executable, "-m", "experiments.bench.memory", "--subject", name, "--way"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    running: dict[str, Any] = {way: subprocess.Popen([*words, way], **pipes) for way in WAYS}
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    try:
        for number in range(-2, rounds):
            for way in WAYS if number % 2 else WAYS[::-1]:
                pipe = running[way]
                pipe.stdin.write("go\n")
                pipe.stdin.flush()
                answer = json.loads(pipe.stdout.readline())
                if number >= 0:
                    found[way].append(answer)
    finally:
        for pipe in running.values():
            pipe.stdin.close()
            pipe.wait()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.bench memory", description=(__doc__ or "").splitlines()[0]
    )
    made.add_argument("--rounds", type=int, default=20, help="steps of each process (20)")
    made.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    made.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = made.parse_args(argv)
    if args.way:
        child(args.way, args.subject)
        return 0
    if args.rounds < 1:
        made.error(f"--rounds: got {args.rounds}, expected at least 1; pass 20")
    for name in SUBJECTS:
        found = race(name, args.rounds)
        times = {way: {number: x["seconds"] for number, x in enumerate(found[way])} for way in WAYS}
        for way in WAYS:
            seconds, mapped = (median(x[key] for x in found[way]) for key in ("seconds", "mapped"))
            held = max(x["megabytes"] for x in found[way])
            print(f"{name}, {way}: {1000 * seconds:.0f} ms, {mapped:,.0f} pages mapped a step, {held:,.0f} MB at most")
        print(f"{name}: kept / plain {ratio(times['kept'], times['plain']):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
