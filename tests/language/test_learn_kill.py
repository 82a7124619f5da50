"""`share-jax learn` killed at any moment and called again ends with the bank of a run that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pretrained_folders import pretrained_folder

ROOT = Path(__file__).parents[2]
KILLS = 10
SETTINGS = ("--first-layer", "1", "--rank", "2", "--max-length", "32", "--epochs", "80", "--batch-size", "2")
ANSWERS = {"sql": "SELECT name", "mongo": "db . shops . find"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, and a file of examples for each of two tasks."""
    folder = tmp_path_factory.mktemp("killed")
    pretrained_folder("decoder", folder)
    for task, answer in ANSWERS.items():
        asked = ("the cat sat", "a dog sat", "the dog sat", "a cat sat", "on a cat", "on the dog")
        lines = [{"prompt": f"{each} {task} :", "completion": answer} for each in asked]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def begun(work: Path, bank: Path, task: str, method: str) -> subprocess.Popen:
    """One more life of the command; the settings are given with the first alone."""
    new = () if (bank / "language_model.json").exists() else ("--model", work / "decoder", "--method", method)
    given = SETTINGS if new else SETTINGS[6:]
    words = ["learn", bank, "--task", task, "--data", work / f"{task}.jsonl", *new, *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "share_jax.cli", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def content(bank: Path) -> dict[str, bytes | list]:
    """What a bank holds: every array to the bit, with the tasks' names and what is told of them."""
    code = (
        "import sys, json, hashlib, numpy as np\n"
        "from share_jax.checkpoint.checkpoint import open_checkpoint\n"
        "from share_jax.language import open_language_bank\n"
        "from share_jax.trees import flat\n"
        "found = open_language_bank(sys.argv[1]).bank\n"
        "leaves = {**flat(found.shared), **{f'tasks/{k}': v for k, v in flat(found.tasks).items()}}\n"
        "bits = {k: hashlib.sha256(np.asarray(v)[: len(found.names) if k.startswith('tasks/') else None].tobytes())"
        ".hexdigest() for k, v in leaves.items()}\n"
        "infos = [open_checkpoint(sys.argv[1]).info(name) for name in found.names]\n"
        "print(json.dumps([list(found.names), infos, bits]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code, bank], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def files(bank: Path) -> frozenset[str]:
    """What lies in a bank's folder now; a save changes it."""
    return frozenset(os.path.join(root, name) for root, *names in os.walk(bank) for name in (*names[0], *names[1]))


def killed_in_midst(process: subprocess.Popen, bank: Path, wait: float) -> bool:
    """Kills the command a moment after it has begun to write; False if it ended before."""
    before = files(bank)
    while process.poll() is None and files(bank) == before:
        time.sleep(0.005)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=wait)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.faults
@pytest.mark.parametrize("method", ["shared_a"])
def test_ten_kills_in_the_midst_change_no_bit(work: Path, tmp_path: Path, method: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for task in ANSWERS:
        process = begun(work, whole, task, method)
        said = process.communicate()[1]
        assert process.returncode == 0, said
    draw, killed, left = random.Random(0), 0, list(ANSWERS)
    for _ in range(20 * KILLS):
        if not left:
            break
        process = begun(work, broken, left[0], method)
        if killed < KILLS and killed_in_midst(process, broken, draw.uniform(0.0, 0.15)):
            killed += 1
        said = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL) or "taken" in said, said
        if process.returncode != -signal.SIGKILL:  # learnt now, or by a life that was killed after its save
            left.pop(0)
    assert killed >= KILLS
    assert not left
    assert content(broken) == content(whole)
