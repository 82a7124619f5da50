"""Train-step time: many slots against few, a later task of `shared_a` against a separate LoRA and the frozen forward.

    python -m experiments.bench.steps --json runs/steps.json

The model is the MiniLM encoder, batch 32, 32 tokens, rank 4 on every FFN-down kernel. All cases are run in turn, round
after round, in one process; a figure is the median over the rounds, a ratio the median of the rounds' own ratios.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.models.backbone import minilm
from share_jax.core.protocol import Parameterization
from share_jax.core.separate import SeparateLoRA
from share_jax.core.shared_a import SharedA
from share_jax.nn.adapt import adapt
from share_jax.train.learner import Learner

BATCH, TOKENS, CLASSES = 32, 32, 15
RATIOS = {
    "1,000 slots / 10 slots": ("shared_a, later task, 1,000 slots", "shared_a, later task, 10 slots"),
    "shared_a later task / separate LoRA": ("shared_a, later task, 10 slots", "separate LoRA"),
    "shared_a later task / frozen forward": ("shared_a, later task, 10 slots", "frozen forward"),
}


def stepper(method: Parameterization, slots: int, *, later: bool) -> Callable[[], Any]:
    """A function that does one train step; of the second task where `later`."""
    backbone = minilm(num_classes=CLASSES)
    inputs = {
        "input_ids": jax.random.randint(jax.random.key(0), (BATCH, TOKENS), 1000, 20000),
        "attention_mask": jnp.ones((BATCH, TOKENS), jnp.int32),
    }
    base: dict[str, Any] = {"params": backbone.params}
    example: dict[str, Any] = inputs
    adapted = adapt(backbone.model, base, targets=backbone.targets, method=method, heads=backbone.heads, **example)
    learner = Learner(adapted, base, optax.adamw(1e-3))
    bank = learner.start(adapted.init(jax.random.key(1), backbone.params, slots))
    batch = {"inputs": inputs, "labels": jnp.zeros(BATCH, jnp.int32)}
    if later:
        bank = learner.learn(bank, "first", [batch])
    state = [learner.begin(bank, jax.random.key(2))]

    def step() -> Any:
        state[0], metrics = learner.step(bank, state[0], batch)
        return metrics

    return step


def forward() -> Callable[[], Any]:
    """The frozen model's forward pass on the same inputs."""
    backbone = minilm(num_classes=CLASSES)
    ids = jax.random.randint(jax.random.key(0), (BATCH, TOKENS), 1000, 20000)
    mask = jnp.ones((BATCH, TOKENS), jnp.int32)
    run = jax.jit(lambda params: backbone.model.apply({"params": params}, ids, mask))
    return lambda: run(backbone.params)


def measure(rounds: int) -> dict[str, Any]:
    """Medians in seconds, and ratios."""
    cases = {
        "frozen forward": forward(),
        "separate LoRA": stepper(SeparateLoRA(), 10, later=False),
        "shared_a, first task": stepper(SharedA(), 10, later=False),
        "shared_a, later task, 10 slots": stepper(SharedA(), 10, later=True),
        "shared_a, later task, 1,000 slots": stepper(SharedA(), 1000, later=True),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for run in cases.values():
        jax.block_until_ready(run())
    for _ in range(rounds):
        for name, run in cases.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - began)
    ratios = {n: float(np.median(np.array(times[a]) / np.array(times[b]))) for n, (a, b) in RATIOS.items()}
    return {
        "suite": "steps",
        "rounds": rounds,
        "results": [
            {
                "case": name,
                "median_s": float(np.median(values)),
                "iqr_s": float(np.subtract(*np.percentile(values, [75, 25]))),
            }
            for name, values in times.items()
        ],
        "ratios": ratios,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    found = measure(args.rounds)
    for row in found["results"]:
        print(f"{row['case']:36} {1000 * row['median_s']:8.1f} ms, interquartile {1000 * row['iqr_s']:.1f}")
    for name, ratio in found["ratios"].items():
        print(f"{name:36} {ratio:8.3f}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
