"""SIGTERM: what is held is saved at the next point, and a process that cannot come to one ends all the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from share_jax.runtime.preemption import LATE, NOTHING, Preempted, Preemption

LONG = 600.0


def asked() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stopped(preemption: Preemption, work: Callable[[], None]) -> None:
    """Works until it is stopped."""
    with pytest.raises(Preempted), preemption:
        work()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def preemption(told: list[str]) -> Preemption:
    return Preemption(told.append, grace=LONG, patience=LONG)


def test_with_nothing_to_save_the_run_stops_at_once(preemption: Preemption, told: list[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped(preemption, asked)
    assert told == [NOTHING]
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_is_held_is_saved_at_the_next_point_and_only_there(preemption: Preemption, told: list[str]) -> None:
    done: list[str] = []

    def save() -> str:
        done.append("saved")
        return "all of it"

    def work() -> None:
        preemption.holding(save)
        preemption.point()
        asked()
        done.append("the step in hand")
        preemption.point()

    stopped(preemption, work)
    assert done == ["the step in hand", "saved"]
    assert told == ["all of it"]


def test_a_task_that_was_saved_meanwhile_is_not_saved_again(preemption: Preemption, told: list[str]) -> None:
    def work() -> None:
        preemption.holding(lambda: pytest.fail("saved again"))
        asked()
        preemption.released()

    stopped(preemption, work)
    assert told == [NOTHING]


def test_a_signal_within_the_save_changes_nothing(preemption: Preemption, told: list[str]) -> None:
    def save() -> str:
        asked()
        return "once"

    def work() -> None:
        preemption.holding(save)
        asked()
        preemption.point()

    stopped(preemption, work)
    assert told == ["once"]


def test_without_a_signal_nothing_happens(preemption: Preemption, told: list[str]) -> None:
    with preemption:
        preemption.holding(lambda: pytest.fail("saved"))
        preemption.point()
        preemption.released()
        preemption.point()
    assert told == []
    Preemption(told.append).point()


BLOCKED = """
import hashlib, sys
from share_jax.runtime.preemption import Preempted, Preemption
try:
    with Preemption(print, grace=0.2, patience=0.1) as preemption:
        if sys.argv[1] == "holding":
            preemption.holding(lambda: "never")
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"one", b"long operation", 2**31 - 1)  # as a compilation: it hears no signal
except Preempted:  # as a run's command does; the signal may come before the operation has begun
    pass
"""


@pytest.mark.parametrize(("holds", "line"), [("nothing", NOTHING), ("holding", LATE)])
def test_a_process_in_one_long_operation_ends_with_status_0_and_one_line(holds: str, line: str) -> None:
    command = [sys.executable, "-c", BLOCKED, holds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready" + chr(10)
        process.terminate()
        out, errors = process.communicate(timeout=LONG)
    assert (process.returncode, out, errors) == (0, line + chr(10), "")


@pytest.mark.faults
def test_two_processes_save_the_same_step_when_one_of_them_is_asked(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = Path(__file__).parents[1] / "support" / "preempted_job.py"
    command = [sys.executable, str(job), f"127.0.0.1:{port}"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    pair = [
        subprocess.Popen([*command, str(number)], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    try:
        for each in pair:  # Gloo prints lines of its own before
            assert each.stdout is not None
            assert any(line == "ready" + chr(10) for line in each.stdout)
        pair[1].terminate()
        outputs = [each.communicate(timeout=LONG)[0].splitlines() for each in pair]
    finally:
        for each in pair:
            each.kill()
            each.wait()
    assert [each.returncode for each in pair] == [0, 0]
    assert len(outputs[0]) == 1
    assert outputs[0][0].startswith("told: saved at step ")
    assert outputs[0] == outputs[1]
