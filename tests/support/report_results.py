"""Results as runs leave them, made up, for the report's tests."""

import json
from pathlib import Path

import numpy as np

from experiments.report.page import write_page
from experiments.report.results import MethodResult, Results, Run, over_seeds, to_json
from experiments.report.sections import load_sections

NAN = float("nan")
LONG = (
    "alt.atheism+sci.space",
    "comp.graphics+talk.politics.guns",
    "comp.os.ms-windows.misc+rec.sport.hockey",
    "comp.sys.ibm.pc.hardware+soc.religion.christian",
    "comp.sys.mac.hardware+talk.politics.mideast",
    "comp.windows.x+rec.autos",
    "misc.forsale+sci.crypt",
    "rec.motorcycles+talk.politics.misc",
    "rec.sport.baseball+sci.electronics",
    "sci.med+talk.religion.misc",
)
METHODS = (
    "shared_a",
    "separate_lora",
    "sequential_lora_one_head",
    "sequential_lora_heads",
    "frozen_head",
    "joint",
    "majority_class",
    "share",
)
PARAMS = {
    "base": 22_713_216,
    "shared": 55_296,
    "per_task": 12_288,
    "heads_per_task": 770,
    "total_tasks": 178_176,
    "separate_lora_total": 675_840,
    "ratio_to_separate": 178_176 / 675_840,
}


def accuracy(name, tasks, seed):
    """Made-up accuracies in the shape that each method has."""
    random = np.random.default_rng([seed, len(name)])
    learnt = random.uniform(0.9, 0.99, tasks)
    age = np.arange(tasks)[:, None] - np.arange(tasks)
    drop = 0.15 if "sequential" in name else 0.0
    matrix = np.where(age >= 0, np.clip(learnt - drop * age, 0, 1), NAN)
    if name == "joint":
        matrix[:-1] = NAN
    if name == "majority_class":
        matrix = np.where(age >= 0, 0.5, NAN)
    return matrix


def results(tasks=LONG, methods=METHODS, seeds=(0,)):
    return to_json(
        Results(
            experiment="newsgroups10",
            preset="quick",
            protocol="task-incremental",
            task_names=tuple(tasks),
            methods=tuple(
                MethodResult(
                    name,
                    tuple(
                        Run(seed, accuracy(name, len(tasks), seed), np.full(len(tasks), NAN), {"train": 40.0 + seed})
                        for seed in seeds
                    ),
                    PARAMS,
                    {"shared": 221_184},
                )
                for name in methods
            ),
            command="python -m experiments.run --preset quick",
        ),
        {"python": "3.11.0", "share_jax": None},
    )


STREAM = {"methods": METHODS[:4], "tasks": LONG[:3]}


def told(content: dict, seconds: float = 2.0) -> dict:
    """Results with all that a run may tell beside its accuracies."""
    tasks = content["tasks"]
    for name, method in content["methods"].items():
        for run in method["runs"]:
            run["extra"] = {}
            run["seconds"] |= {f"task {t + 1}": seconds + run["seed"] + t for t in range(len(tasks))}
            run["seconds"]["total"] = 100.0
            if name in ("share", "shared_a"):
                run["extra"]["error_bound"] = {task: 0.02 * (i + 1) for i, task in enumerate(tasks)}
                run["extra"]["measured_error"] = {task: 0.01 * (i + 1 + run["seed"]) for i, task in enumerate(tasks)}
        method["mean"], method["std"] = over_seeds(method["runs"])
    return content


def save(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def made(folder: Path, *, protocol: str = "task-incremental", command: str | None = None, **options) -> Path:
    content = told(results(**{**STREAM, **options}))
    content["protocol"] = protocol
    content["command"] = command or content["command"]
    return save(folder, content)


def write_two(root: Path) -> Path:
    """A report of two sections, the first with every method."""
    first = made(root / "a", methods=METHODS, tasks=LONG, seeds=(0, 1))
    return write_page(load_sections([first, made(root / "b", protocol="class-incremental")]), root / "out")
