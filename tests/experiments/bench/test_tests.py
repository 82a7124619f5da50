"""The suite `tests`: what is read off pytest's last line and off the processes. No test file is run."""

from pathlib import Path

import pytest

from experiments.bench import tests as suite
from experiments.bench.suite import Options


def test_files_are_found_by_their_paths(tmp_path):
    found = suite.files_of(Options(1, tmp_path, only=r"experiments/bench/test_(tests|lm)\.py"))
    assert [path.as_posix() for path in found] == [
        "tests/experiments/bench/test_lm.py",
        "tests/experiments/bench/test_tests.py",
    ]
    assert len(suite.files_of(Options(1, tmp_path, tiny=True))) == 1
    assert suite.files_of(Options(1, tmp_path, only="start-up")) == []


def test_a_command_tells_its_status_and_memory():
    found = suite.command(("-c", "x = b'1' * 2**26; print('said'); raise SystemExit(3)"))
    assert (found["status"], found["last"]) == (3, "said")
    assert found["peak_bytes"] > 2**26
    assert found["cpu_s"] > 0


@pytest.mark.parametrize(
    ("last", "counts"),
    [
        ("13 passed in 3.2s", {"tests": 13}),
        ("1 failed, 2 passed in 3.2s", {"tests": 2, "failed": 1}),
        ("1 failed, 1 error in 3.2s", {"tests": 0, "failed": 2}),
        ("12 passed, 3 deselected, 1 warning in 0.3s", {"tests": 12}),
    ],
)
def test_tests_are_counted(last, counts):
    assert suite.counted(last) == counts


def test_folders_are_parts_of_the_whole():
    found = {"seconds": 9.0, "peak_bytes": 1, "last": "1 passed"}
    rows = [
        suite.file_row(Path(path), {**found, "cpu_s": cpu})
        for path, cpu in (("tests/a/test_x.py", 1.0), ("tests/b/test_x.py", 6.0), ("tests/a/test_y.py", 1.0))
    ]
    assert rows[0]["case"] == "tests/a: test_x.py"
    assert suite.file_ratios(rows) == {
        "processor time of the ten slowest files / all": 1.0,
        "processor time of tests/b / all": 0.75,
        "processor time of tests/a / all": 0.25,
    }
    assert suite.file_ratios([]) == {}
