"""Runs of token streams on a tiny decoder, as the command line starts them."""

import json
from pathlib import Path
from typing import Any

from experiments import run
from experiments.report.results import load_results

FEW = ["--quiet", "--preset", "quick", "--first-layer", "1", "--steps", "2", "--batch-size", "4", "--rank", "2",
       "--num-basis", "4", "--phi", "1", "--eval-batch-size", "4", "--max-length", "32", "--buffer-size", "6",
       "--ewc-examples", "4", "--adapt-tasks", "1"]  # fmt: skip

ASKED = ("the cat sat", "a dog sat", "the dog sat", "a cat sat")
SAID = {"sql": "SELECT name", "mongo": "db . shops . find", "words": "on the cat"}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """A JSONL file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def prompts_folder(where: Path) -> Path:
    """A folder with a JSONL file of prompts for each task, and a test of one."""
    where.mkdir(exist_ok=True)
    for name, answer in SAID.items():
        write_lines(where / f"{name}.jsonl", [{"prompt": f"{a} {name} :", "completion": answer} for a in ASKED])
    write_lines(where / "sql.test.jsonl", [{"prompt": "a cat sql :", "completion": SAID["sql"]}])
    return where


def olora_folder(where: Path) -> Path:
    """Two small sets in O-LoRA's layout."""
    for name, labels in {"NLI/RTE": ["a dog", "the cat sat"], "SC/amazon": ["on", "sat"]}.items():
        folder = where / name
        folder.mkdir(parents=True)
        for part, count in (("train", 6), ("test", 4)):
            rows = [{"sentence": f"{ASKED[n % 4]}", "label": labels[n % 2]} for n in range(count)]
            (folder / f"{part}.json").write_text(json.dumps(rows))
        (folder / "labels.json").write_text(json.dumps(labels))
    return where


def learnt(experiment: str, weights: Path, workdir: Path, methods: str, *more: str) -> dict[str, Any]:
    """The results of a run."""
    words = ["--experiment", experiment, "--weights", str(weights), "--workdir", str(workdir), "--methods", methods]
    assert run.main([*words, *FEW, *more]) == 0
    return load_results(workdir / "results.json")
