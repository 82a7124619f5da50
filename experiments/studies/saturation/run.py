"""Does one subspace saturate? Error and accuracy of up to 200 tasks merged into `share`, at fixed k and with k growing.

    python -m experiments.studies.saturation.run --data-folder path/to/clinc150 --json runs/saturation.json \
        --markdown experiments/SATURATION.md

200 small tasks are drawn from CLINC150 and learnt on the frozen MiniLM, each as a LoRA of its own on the last FFN-down
kernel. They are merged into one subspace one after another, and at 10, 25, 50, 100 and 200 tasks every task's update
and accuracy is compared with its own LoRA's. Each LoRA starts from an A of its own; with `--starts own,one` everything
is done again with all starting from one. About three minutes of two free cores.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.notify import to_stderr
from experiments.studies.saturation.tasks import TARGET, Budget, Learnt, SmallTask, Study, make_tasks
from share_jax.adapters.factors import Adapter
from share_jax.errors import InputError, ShareError, message
from share_jax.runtime.malloc import keep_freed
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState, factors_of, report, stack_size

COUNTS = (10, 25, 50, 100, 200)
FIXED = (8, 16, 32, 64)
CHOICES = {
    **{f"k = {k}": Choice(k=k) for k in FIXED},
    "99 % explained variance": Choice(explained_variance=0.99),
    "error at most 0.1": Choice(max_error=0.1),
}
"""How k is chosen; the last two let it grow."""
TOGETHER = 10
"""Tasks that are merged at once where k grows: every new k is a new shape to compile."""
ALL = tuple(CHOICES)
PARTS = {
    "fixed": tuple(name for name in ALL if CHOICES[name].k is not None),
    "growing": tuple(name for name in ALL if CHOICES[name].k is None),
}
STARTS = {"own": "each LoRA from an A of its own", "one": "all LoRAs from one A"}
TRAIN, TEST, TOKENS = 30, 15, 12
"""Texts of each class to learn from and to be tested on, and tokens of a text."""

Tell = Callable[[str], None]
Keep = Callable[[list[dict[str, Any]]], None]


def merged_at(
    adapters: Mapping[str, Adapter], choice: Choice, counts: Sequence[int]
) -> dict[int, tuple[ShareState, float]]:
    """The subspace when so many adapters are in it, and the seconds spent on it till then.

    At fixed k they are merged one after another, where k grows `TOGETHER` at a time.
    """
    names, state, spent, found, start = list(adapters), ShareState(), 0.0, {}, 0
    while start < len(names):
        end = start + (TOGETHER if choice.k is None else 1)
        end = min([end, *(count for count in counts if count > start)])
        new = {name: adapters[name] for name in names[start:end]}
        began = time.perf_counter()
        state = merge(state, new, choice) if state.tasks else initialize(new, choice)
        spent += time.perf_counter() - began
        start = end
        if end in counts:
            found[end] = (state, spent)
    return found


def measure(
    state: ShareState, learnt: Mapping[str, Learnt], tasks: Sequence[SmallTask], study: Study
) -> dict[str, Any]:
    """What the tasks of a state have lost: errors of their updates, and accuracies beside those of their own LoRAs."""
    names = state.tasks
    adapters = {name: factors_of(state, name) for name in names}
    errors = np.array([relative_distance(learnt[name].adapter, adapters[name]) for name in names])
    bounds = np.array([each.error_bound for each in report(state).values()])
    by_name = {task.name: task for task in tasks}
    accuracy = [study.accuracy(by_name[name], adapters[name]) for name in names]
    layer = state.layers[TARGET]
    return {
        "tasks": len(names),
        "k": list(layer.num_basis),
        "error_mean": float(errors.mean()),
        "error_max": float(errors.max()),
        "error_first_ten": float(errors[:10].mean()),
        "bound_mean": float(bounds.mean()),
        "bound_max": float(bounds.max()),
        "bound_held": bool(np.all(errors <= bounds)),
        "accuracy": float(np.mean(accuracy)),
        "own_accuracy": float(np.mean([learnt[name].accuracy for name in names])),
        "without_accuracy": float(np.mean([learnt[name].without for name in names])),
        "bytes": 4 * stack_size(state),
        "separate_bytes": 4 * sum(f.rank * sum(f.shape) for name in names for f in learnt[name].adapter.values()),
    }


def run(
    tasks: Sequence[SmallTask],
    study: Study,
    counts: Sequence[int],
    seed: int,
    tell: Tell,
    keep: Keep,
    starts: Sequence[str] = ("own",),
    choices: Sequence[str] = ALL,
) -> list[dict[str, Any]]:
    """Every start, choice of k and number of tasks: one row each; `keep` is handed all rows after each choice."""
    rows = []
    for start in starts:
        learnt = {}
        for index, task in enumerate(tasks):
            learnt[task.name] = study.learn(task, seed if start == "one" else seed + 1 + index, index)
            if (index + 1) % 50 == 0:
                tell(f"{STARTS[start]}: {index + 1} tasks learnt")
        adapters = {name: each.adapter for name, each in learnt.items()}
        for name in choices:
            choice = CHOICES[name]
            for count, (state, seconds) in merged_at(adapters, choice, counts).items():
                found = {**measure(state, learnt, tasks, study), "merge_seconds": seconds / count}
                if choice.k is not None:
                    found["at_once"] = at_once({n: adapters[n] for n in list(adapters)[:count]}, choice)
                rows.append({"start": start, "choice": name, **found})
            keep(rows)
            last = rows[-1]
            tell(f"{STARTS[start]}, {name}: {last['tasks']} tasks, k {last['k']}, error {last['error_mean']:.3f}")
    return rows


def at_once(adapters: Mapping[str, Adapter], choice: Choice) -> float:
    """Mean error of the same adapters when one subspace is made of all at once."""
    state = initialize(adapters, choice)
    return float(np.mean([relative_distance(adapters[name], factors_of(state, name)) for name in adapters]))


def prepare(data_folder: Path | None, cache_dir: Path | None, count: int, seed: int) -> tuple[list[SmallTask], Study]:
    """The tasks, their inputs taken through the frozen layers, and what learns them.

    Raises:
        ShareError: the data or the weights cannot be had.
    """
    from experiments.assets import minilm_folder
    from experiments.backbones.backbone import minilm
    from experiments.streams.clinc150 import clinc150
    from share_jax.models.tokenizer import load_tokenizer

    texts = clinc150(data_folder, seed=seed, train_per_task=15 * TRAIN, test_per_task=15 * TEST)
    encode, backbone = load_tokenizer(minilm_folder(cache_dir), TOKENS), minilm(cache_dir)
    tasks = list(make_tasks(texts, backbone, encode, tasks=count, seed=seed))
    return tasks, Study(backbone, Budget(), tasks[0].train[0])


def together(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Parts of one study, with the same tasks and LoRAs, as one.

    Raises:
        InputError: they were not run alike.
    """
    first, *others = contents
    for other in others:
        for key in ("suite", "budget", "seed", "versions"):
            if other[key] != first[key]:
                fix = "run all parts alike"
                raise InputError(message(f"--rows, {key}", got=other[key], expected=first[key], fix=fix))
    return {**first, "rows": [row for content in contents for row in content["rows"]]}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study, and writes JSON, the page and its plots; 2 for bad input."""
    import os

    from experiments.report.versions import versions
    from experiments.studies.saturation.page import write_page

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-folder", type=Path, help="CLINC150 as a folder; from TensorFlow Datasets if not given")
    parser.add_argument("--cache-dir", type=Path, help="where weights are kept")
    parser.add_argument("--tasks", type=int, default=COUNTS[-1], help="how many tasks at most")
    parser.add_argument("--starts", default="own", choices=("own", "one", "own,one"), help="where the LoRAs start")
    parser.add_argument("--choices", default="all", choices=("all", *PARTS), help="how k is chosen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("runs/saturation.json"))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--rows", type=Path, nargs="+", help="make the page of these JSONs alone, and run nothing")
    args = parser.parse_args(argv)
    try:
        if args.rows:
            content = together([json.loads(path.read_text(encoding="utf-8")) for path in args.rows])
        else:
            tasks, study = prepare(args.data_folder, args.cache_dir, args.tasks, args.seed)
            counts = [count for count in COUNTS if count <= args.tasks]
            content = {"suite": "saturation", "budget": asdict(study.budget), "seed": args.seed, "versions": versions()}
            args.json.parent.mkdir(parents=True, exist_ok=True)

            def keep(rows: list[dict[str, Any]]) -> None:
                content["rows"] = rows
                args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

            run(tasks, study, counts, args.seed, to_stderr, keep, args.starts.split(","), PARTS.get(args.choices, ALL))
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.markdown:
        write_page(content, args.markdown)
        print(args.markdown)
    return 0


if __name__ == "__main__":
    keep_freed()
    sys.exit(main())
