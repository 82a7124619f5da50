"""Learns the tasks, merges them, and measures what their updates and accuracies have lost."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.saturation.tasks import TARGET, Budget, Learnt, SmallTask, Study, make_tasks
from experiments.studies.saturation.varied import ALL, CHOICES, STARTS, TEST, TOGETHER, TOKENS, TRAIN
from share_jax.adapters.factors import Adapter
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState, factors_of, report, stack_size

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
    from experiments.streams.clinc import clinc150
    from share_jax.models.tokenizer import load_tokenizer

    texts = clinc150(data_folder, seed=seed, train_per_task=15 * TRAIN, test_per_task=15 * TEST)
    encode, backbone = load_tokenizer(minilm_folder(cache_dir), TOKENS), minilm(cache_dir)
    tasks = list(make_tasks(texts, backbone, encode, tasks=count, seed=seed))
    return tasks, Study(backbone, Budget(), tasks[0].train[0])
