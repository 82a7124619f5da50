"""Runs as processes that are watched from outside, through what they write, and ended at chosen moments."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.results import load_results
from share_jax.checkpoint import arrays
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.trees import flat

HERE = Path(__file__).parent
TINY = (str(HERE / "tiny_run.py"),)
REAL = ("-m", "experiments.run")
DIGITS = ("--experiment", "digits5", "--preset", "quick", "--eval-batch-size", "64", "--num-basis", "12", "--phi", "4")

PATIENCE = 600.0
"""Seconds after which a process that does not come to what is waited for counts as hung."""


@contextmanager
def life(folder: Path, *flags: str, program: tuple[str, ...] = TINY) -> Iterator[subprocess.Popen[str]]:
    """A run in `folder`, resumed if there is one already; killed at the end of the context if it still lives."""
    resume = ("--resume",) if (folder / "run.json").exists() else ()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "TINY_RUN_MARKS": str(folder.parent)}
    command = [sys.executable, *program, *DIGITS, *flags, *resume, "--workdir", str(folder)]
    out = folder.parent / "output.txt"
    with out.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def output(folder: Path) -> str:
    """What the last life of a run printed."""
    return (folder.parent / "output.txt").read_text()


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> bool:
    """Waits until something has happened; False if the process ended before."""
    began = time.monotonic()
    while not happened():
        if process.poll() is not None:
            return False
        assert time.monotonic() - began < PATIENCE, "neither happened nor ended"
        time.sleep(0.0005)
    return True


def ended(process: subprocess.Popen[str]) -> int:
    """Waits for the end, and gives the status."""
    return process.wait(PATIENCE)


def term(process: subprocess.Popen[str]) -> None:
    """Asks the process to stop."""
    process.send_signal(signal.SIGTERM)


def stores(folder: Path) -> list[Path]:
    """The checkpoint folders of a run; what share measures with lies beside its own, as `seed-0-originals`."""
    return sorted((folder / "checkpoints").glob("*/seed-*[0-9]"))


def manifest_of(store: Path) -> dict[str, Any]:
    """The manifest as it is now; an empty one before the first."""
    try:
        return json.loads((store / "manifest.json").read_text())
    except (OSError, ValueError):
        return {"tasks": {}, "states": []}


def tasks_done(folder: Path) -> int:
    """Tasks that are saved, over all methods."""
    return sum(len(manifest_of(store)["tasks"]) for store in stores(folder))


def step_in_flight(folder: Path) -> int:
    """The step of the last saved training in flight, 0 if there is none."""
    found = [manifest_of(store)["states"] for store in stores(folder)]
    return max((states[-1]["info"]["step"] for states in found if states), default=0)


def saving(folder: Path) -> bool:
    """Whether a save is under way."""
    return any(folder.glob("checkpoints/*/seed-*/*/*.orbax-checkpoint-tmp*"))


def findings(folder: Path) -> dict[str, Any]:
    """Everything that must not depend on how often a run was broken: accuracies, and the bytes that were learnt."""
    content = load_results(folder / "results.json")
    found: dict[str, Any] = {
        name: [run["accuracy_matrix"] for run in method["runs"]] for name, method in content["methods"].items()
    }
    for where in stores(folder):
        store = ckpt.open_checkpoint(where)
        assert store.manifest.inflight is None
        for name in store.names:
            slot = ckpt.load_task(store, name, arrays.like_of(store.record(name)))
            found[f"{where.parent.name}: {name}"] = _bytes(slot)
        if store.manifest.shared is not None:
            shared = ckpt.load_shared(store, arrays.like_of(store.manifest.shared))
            found[f"{where.parent.name}: shared"] = _bytes(shared)
    return found


def without_times(results: Any) -> Any:
    """The content of a `results.json` without what two equal runs differ in.

    That is the seconds, and the sizes of checkpoint files, in whose text times and random names stand.
    """
    if isinstance(results, dict):
        own = {"seconds", "files_shared", "files_tasks", "file_manifest"}
        return {key: without_times(value) for key, value in results.items() if key not in own}
    return [without_times(value) for value in results] if isinstance(results, list) else results


def _bytes(tree: dict[str, Any]) -> dict[str, bytes]:
    return {path: np.asarray(leaf).tobytes() for path, leaf in flat(tree).items()}
