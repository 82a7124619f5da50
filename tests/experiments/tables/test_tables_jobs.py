"""Several runs of a table at once: a core each, one error stops all, SIGTERM reaches all."""

import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import table_workers

from experiments.config.run_config import Config, preset
from experiments.tables import jobs
from share_jax.errors import InputError
from share_jax.runtime.preemption import Preempted


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "work", table_workers.work)
    monkeypatch.setattr(jobs, "cores", lambda: [0, 1])


def config_of(workdir: Path) -> Config:
    """A run without any method's numbers, whose files would load JAX in every process."""
    return replace(preset("digits5", "quick"), numbers=(), workdir=workdir)


def go(folder: Path, *names: str) -> list[str]:
    """Runs what stands for runs; what was told, and an entry for every call after one."""
    told: list[str] = []
    try:
        configs = [config_of(folder / name) for name in names]
        jobs.run_apart(configs, 2, told.append, lambda: told.append("after"), "repeat")
    finally:
        (folder / "told").write_text("\n".join(told))
    return told


def test_a_core_each_and_the_next_on_the_first_that_is_free(tmp_path: Path) -> None:
    told = go(tmp_path, "ends-a", "ends-b", "ends-c")
    assert told.count("after") == 3
    assert {f"ends-{name}: done" for name in "abc"} <= set(told)
    assert told[:2] == ["ends-a: begins, on core 0", "ends-b: begins, on core 1"]
    cores = [(tmp_path / f"ends-{name}" / "core").read_text() for name in "abc"]
    assert cores[:2] == ["0", "1"]
    assert f"ends-c: begins, on core {cores[2]}" in told


def test_an_error_stops_the_others_and_begins_no_more(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run fails-a: got an error, told above, expected results; fix it, and repeat"):
        go(tmp_path, "waits-a", "fails-a", "ends-a")
    assert (tmp_path / "waits-a" / "stopped").exists() or not (tmp_path / "waits-a").exists()
    assert not (tmp_path / "ends-a").exists()
    assert "after" not in (tmp_path / "told").read_text()


def test_a_run_saves_and_ends_when_the_command_is_killed(tmp_path: Path) -> None:
    program = f"""
import pickle, sys
sys.path.insert(0, {str(Path(table_workers.__file__).parent)!r})
import table_workers
from experiments.tables import jobs
if __name__ == "__main__":
    jobs.work = table_workers.work
    jobs.run_apart([pickle.loads({pickle.dumps(config_of(tmp_path / "waits-a"))!r})], 1, print, print, "repeat")
"""
    (tmp_path / "command.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, tmp_path / "command.py"], env=environment) as command:
        wait_for(tmp_path / "waits-a" / "core")
        command.kill()
    wait_for(tmp_path / "waits-a" / "stopped")


def wait_for(path: Path) -> None:
    began = time.monotonic()
    while not path.exists():
        assert time.monotonic() - began < 120, path
        time.sleep(0.01)


def test_sigterm_reaches_every_run(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        go(tmp_path, "stops-a", "waits-a", "ends-a")
    assert (tmp_path / "stops-a" / "stopped").read_text() == "repeat"
    assert not (tmp_path / "ends-a").exists()
    assert "after" not in (tmp_path / "told").read_text()
