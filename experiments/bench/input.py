"""The share of a train step's time that is spent waiting for its batch, and how much of the batches is padding.

    python -m experiments.bench.input --json runs/input.json
    python -m experiments.bench.input --experiments clinc150 --data-folder path/to/clinc150

The default configuration of each experiment: the first task's steps of `shared_a`, awaited one by one. Three ways take
turns, round after round, in one process: batches prepared ahead by threads, prepared when they are asked for, and at
hand before the clock starts. A figure is the median over the rounds. Waiting is the time from asking for a batch to
having it; the padding is counted over the tokens of three epochs of every task, with and without length buckets.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.algorithms import loop
from experiments.algorithms.batches import task_pipeline_of
from experiments.algorithms.job import Job
from experiments.config.experiment import experiments
from experiments.config.run_config import Config, preset
from experiments.data.batch_order import Order, bucketed, token_counts
from experiments.data.pipeline import Batch, Pipeline
from experiments.report.blocks import table
from experiments.report.progress import NullProgress
from experiments.stream_and_backbone import build, raw_stream
from experiments.streams.base import Task
from share_jax.parameterizations.shared_a import SharedA

EPOCHS = 3
WAYS = ("prefetched", "when asked for", "at hand")


def timed(run: Any, state: Any, base: Any, batches: Iterable[Batch]) -> tuple[float, float]:
    """Seconds of all steps and, within them, seconds of waiting for batches; each step is awaited."""
    waited, began = 0.0, time.perf_counter()
    taking = iter(batches)
    while True:
        asked = time.perf_counter()
        batch = next(taking, None)
        if batch is None:
            return time.perf_counter() - began, waited
        waited += time.perf_counter() - asked
        state, metrics = run(state, base, batch)
        jax.block_until_ready((state, metrics))


def waiting(config: Config, rounds: int) -> list[dict[str, Any]]:
    """For each way: milliseconds per step, and the share of it that is waiting."""
    stream, backbone = build(config, print, tasks=1)
    with tempfile.TemporaryDirectory() as folder:
        job = Job("shared_a", config, stream, backbone, 0, Path(folder), NullProgress())
        learner = loop.Sequence(job, loop.Plan(SharedA(config.rank, config.alpha)))
    pipeline = task_pipeline_of(job, 0)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS:
            state = learner.start(learner.fresh, 0, True)
            jax.block_until_ready(state)
            spent = _way(way, pipeline, config.prefetch, learner.steps[True], state, learner.base)
            if number:  # the first round warms up
                found[way].append(spent)
    ready = np.array([total for total, _ in found["at hand"]])
    return [
        {
            "batches": way,
            "prefetch": {"prefetched": config.prefetch, "when asked for": 0}.get(way),
            "step_ms": float(np.median([1000 * total / config.steps for total, _ in spent])),
            "waiting_ms": float(np.median([1000 * waited / config.steps for _, waited in spent])),
            "waiting_share": float(np.median([waited / total for total, waited in spent])),
            "step_ratio_to_at_hand": float(np.median(np.array([total for total, _ in spent]) / ready)),
        }
        for way, spent in found.items()
    ]


def _way(way: str, pipeline: Pipeline, prefetch: int, run: Any, state: Any, base: Any) -> tuple[float, float]:
    with pipeline.open(prefetch=prefetch if way == "prefetched" else 0) as stream:
        return timed(run, state, base, list(stream) if way == "at hand" else stream)


def padding(tasks: Sequence[Task], batch_size: int, lengths: Sequence[int]) -> dict[str, Any] | None:
    """Share of the tokens in three epochs of every task that are padding, and the batches of each length.

    None for tasks that are no texts. The last batch of an epoch is counted without the rows that fill it up.
    """
    if "attention_mask" not in tasks[0].train.inputs:
        return None
    used = given = 0
    batches: dict[int, int] = {}
    for number, task in enumerate(tasks):
        mask = task.train.inputs["attention_mask"]
        tokens = token_counts(mask)
        order = Order(len(tokens), batch_size, 0, number, bucketed(task.train.inputs, lengths))
        for step in range(EPOCHS * order.per_epoch):
            index, width = order.batch(step)
            width = width or mask.shape[1]
            used, given = used + int(tokens[index].sum()), given + width * len(index)
            batches[width] = batches.get(width, 0) + 1
    return {"padding_share": 1 - used / given, "batches": {str(width): batches[width] for width in sorted(batches)}}


def measure(config: Config, rounds: int) -> dict[str, Any]:
    """One experiment's waiting and padding."""
    tasks = raw_stream(config).tasks
    return {
        "experiment": config.experiment,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "length_buckets": list(config.length_buckets),
        "waiting": waiting(config, rounds),
        "padding_one_length": padding(tasks, config.batch_size, ()),
        "padding_as_configured": padding(tasks, config.batch_size, config.length_buckets),
    }


def tables(results: Sequence[dict[str, Any]]) -> str:
    """What was found, as Markdown."""
    waits = [
        (
            found["experiment"],
            row["batches"],
            f"{row['step_ms']:.2f}",
            f"{row['waiting_ms']:.3f}",
            f"{100 * row['waiting_share']:.2f}",
            f"{row['step_ratio_to_at_hand']:.3f}",
        )
        for found in results
        for row in found["waiting"]
    ]
    shares = []
    for found in results:
        one, now = found["padding_one_length"], found["padding_as_configured"]
        if one and now:
            lengths = ", ".join(f"{width}: {count}" for width, count in now["batches"].items())
            padded = (f"{100 * each['padding_share']:.1f}" for each in (one, now))
            shares.append((found["experiment"], *padded, lengths))
    head = ("experiment", "batches", "step, ms", "waiting, ms", "waiting, %", "step / at hand")
    of_lengths = ("experiment", "padding, one length, %", "as configured, %", "batches of each length")
    return f"{table(head, waits, left=(0, 1))}\n\n{table(of_lengths, shares, left=(0, 3))}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--experiments", nargs="+", choices=tuple(experiments()), default=["newsgroups10", "clinc150"])
    parser.add_argument("--preset", choices=("quick", "default", "full"), default="default")
    parser.add_argument("--data-folder", type=Path, help="CLINC150 as a folder; from TensorFlow Datasets without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    configs = [replace(preset(name, args.preset), data_folder=args.data_folder) for name in args.experiments]
    results = [measure(config, args.rounds) for config in configs]
    print(tables(results))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"suite": "input", "rounds": args.rounds, "results": results}
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
