"""Kill -9 at any moment: the next run with --resume ends with the same accuracies and the same bytes in every slot."""

import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from processes import (
    DIGITS,
    REAL,
    ended,
    findings,
    life,
    manifest_of,
    output,
    saving,
    step_in_flight,
    stores,
    tasks_done,
    term,
    wait_for,
)
from tiny_run import tiny_vit

from experiments import run as run_module
from experiments.config import digits5

FEW = ("--quiet", "--methods", "shared_a", "--steps", "4", "--save-every", "1")
FLAGS = ("--quiet", "--methods", "share,shared_a", "--steps", "6", "--save-every", "2")
LAST_SAVED = 4
KILLS = 30


@pytest.mark.slow
def test_a_run_killed_within_a_save_ends_as_one_that_ran_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own is killed in the midst of a save in the second task; this process goes on with it."""
    whole, broken = tmp_path / "whole", tmp_path / "broken" / "run"
    broken.parent.mkdir()
    with life(broken, *FEW) as process:
        assert wait_for(process, lambda: tasks_done(broken) >= 1 and saving(broken)), output(broken)
        process.kill()
    assert process.returncode == -9
    assert not (broken / "results.json").exists()
    monkeypatch.setattr(digits5, "digits_vit", tiny_vit)
    assert run_module.main([*DIGITS, *FEW, "--workdir", str(whole)]) == 0
    assert run_module.main([*DIGITS, *FEW, "--workdir", str(broken), "--resume"]) == 0
    assert findings(broken) == findings(whole)
    assert [path for path in broken.rglob("*") if "tmp" in path.name] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, float]:
    """What a run finds that goes through, and its seconds."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    began = time.perf_counter()
    with life(folder, *FLAGS) as process:
        assert ended(process) == 0, output(folder)
    return findings(folder), time.perf_counter() - began


def moment(folder: Path, kind: str, draw: random.Random, seconds: float) -> tuple:
    """When a life is killed: a condition on what it wrote, and seconds after it; an unbroken run takes `seconds`."""
    done = tasks_done(folder)
    if kind == "time":
        return lambda: True, draw.uniform(0, 0.5 * seconds)
    if kind == "save":
        seen = Counter()

        def again() -> bool:
            seen["now"] += saving(folder)
            return seen["now"] >= wanted

        wanted = draw.choice((1, 2, 5, 20))
        return again, draw.uniform(0, 0.03)
    if kind == "merge":
        return (folder.parent / "merging").exists, draw.uniform(0, 0.002)  # a merge of this size takes milliseconds
    if kind == "last step":
        return lambda: step_in_flight(folder) == LAST_SAVED, draw.uniform(0, 0.5)
    if kind == "first task":
        return lambda: step_in_flight(folder) > 0, draw.uniform(0, 0.2)
    assert kind == "task"
    return lambda: tasks_done(folder) > done, draw.uniform(0, 0.1)


def hit(folder: Path) -> set[str]:
    """Where a killed run died, by what it left behind."""
    manifests = [manifest_of(store) for store in stores(folder)]
    busy = any(each["states"] for each in manifests)
    found = {"between tasks" if not busy else "in a later task"} if tasks_done(folder) else {"in task 1"}
    if (folder.parent / "merging").exists():
        found.add("in a merge")
    if saving(folder):
        found.add("in a save")
    return found


@pytest.mark.faults
def test_thirty_kills_at_random_moments_change_no_bit(whole: tuple[dict, float], tmp_path: Path) -> None:
    """Runs of up to six kills each; every run is resumed after each kill, and ends with what an unbroken one finds."""
    draw = random.Random(5)
    where: Counter[str] = Counter()
    kills = run = 0
    while kills < KILLS:
        folder = tmp_path / str(run) / "run"
        folder.parent.mkdir()
        left = ["time", "save", "merge", "last step", "task"]
        draw.shuffle(left)
        left.append("first task")
        finished = False
        while not finished:
            (folder.parent / "merging").unlink(missing_ok=True)
            with life(folder, *FLAGS) as process:
                happened, after = moment(folder, left[-1], draw, whole[1]) if left else (lambda: False, 0.0)
                if wait_for(process, happened):
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(after)
                    process.kill()
                finished = process.wait() == 0
                assert finished or process.returncode == -9, output(folder)
            if not finished:
                left.pop()
                kills += 1
                where.update(hit(folder))
        assert findings(folder) == whole[0], f"run {run}"
        run += 1
    print(f"{kills} kills: {dict(where)}")
    assert {"in a merge", "in a save", "in task 1", "in a later task", "between tasks"} <= set(where)


@pytest.mark.faults
def test_the_real_command_is_killed_and_resumed(tmp_path: Path) -> None:
    """`python -m experiments.run` itself, pretraining included: a kill within a save, and one that asks first."""
    flags = ("--quiet", "--methods", "share", "--steps", "6", "--save-every", "2")
    whole, broken = tmp_path / "a" / "run", tmp_path / "b" / "run"
    for folder in (whole, broken):
        folder.parent.mkdir()
    with life(broken, *flags, program=REAL) as process:
        assert wait_for(process, lambda: tasks_done(broken) >= 2 and saving(broken)), output(broken)
        process.kill()
    with life(broken, *flags, program=REAL) as process:
        assert wait_for(process, lambda: tasks_done(broken) >= 3 and step_in_flight(broken) > 0), output(broken)
        term(process)
        assert ended(process) == 0
        assert "terminated: " in output(broken)
    for folder in (whole, broken):
        with life(folder, *flags, program=REAL) as process:
            assert ended(process) == 0, output(folder)
    assert findings(broken) == findings(whole)
