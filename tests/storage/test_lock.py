"""A folder has one run at a time, and a run that was killed holds nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from share_jax.errors import BusyError, SaveError
from share_jax.storage import lock

HOLDER = """
import sys, time
from pathlib import Path
from share_jax.storage import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match=f"got a lock of process {first.pid}") as caught, lock.hold(tmp_path):
                pytest.fail("held twice")
            assert "\n" not in str(caught.value)
        finally:
            first.kill()
            first.wait()
        with lock.hold(tmp_path):
            assert (tmp_path / lock.FILE).exists()


def test_a_context_that_ended_holds_nothing_and_one_that_lasts_holds_within_the_process(tmp_path: Path) -> None:
    with lock.hold(tmp_path / "new"), pytest.raises(BusyError), lock.hold(tmp_path / "new"):
        pytest.fail("held twice")
    with lock.hold(str(tmp_path / "new")):
        pass


def test_a_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
    with lock.hold(tmp_path):
        child = subprocess.Popen(command, close_fds=False, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"  # the kernel closes files a moment after the parent goes on
        with lock.hold(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def none(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(RuntimeWarning, match="see to it that no other run uses it"), lock.hold(tmp_path):
        pass


def test_without_locks_a_leftover_is_kept_since_nobody_knows_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    from share_jax.storage.untrusted import TEMP_MARK, publish

    def none(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    left = tmp_path / f".out{TEMP_MARK}of-another"
    left.mkdir()
    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(RuntimeWarning, match="no lock"), publish(tmp_path / "out"):
        pass
    assert left.exists()
    assert (tmp_path / "out").exists()


def test_a_forked_child_that_lives_on_does_not_keep_it_and_frees_nothing(tmp_path: Path) -> None:
    """The child ends by a kill alone; JAX is not loaded in the process that forks."""
    code = f"""
import os, signal, sys
from pathlib import Path
from share_jax.storage import lock
folder = Path({str(tmp_path)!r})
with lock.hold(folder):
    child = os.fork()
    if not child:
        signal.pause()
with lock.hold(folder):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
with lock.hold(folder):
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    try:
        with lock.hold(folder):
            print("held twice")
    except lock.BusyError:
        print("held once")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "held once\n"


def test_a_file_of_that_name_which_is_no_locks_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / lock.FILE).write_text("another program's")
    with lock.hold(tmp_path):
        pass
    assert (tmp_path / lock.FILE).read_text() == "another program's"


def test_ones_own_lock_is_called_that(tmp_path: Path) -> None:
    with lock.hold(tmp_path), pytest.raises(BusyError, match="of this process itself"), lock.hold(tmp_path):
        pass


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="expected a folder to write in"), lock.hold(tmp_path / "file"):
        pass
