"""Whole commands: their end, their limit, and a peak memory that is their own."""

import sys

import numpy as np

from experiments.bench.commands import own_peak, run_command

LARGE = 400_000_000


def run(tmp_path, code: str, **options):
    return run_command([sys.executable, "-S", "-c", code], {}, tmp_path, **options)


def test_a_command_does_not_inherit_the_peak_of_what_starts_it(tmp_path):
    held = np.ones(LARGE // 8)
    ended = run(tmp_path, "")
    assert own_peak() > held.nbytes
    assert 0 < ended.peak_bytes < 100_000_000
    assert run(tmp_path, f"b'x' * {LARGE}").peak_bytes > LARGE


def test_a_command_tells_how_it_ended(tmp_path):
    ended = run(tmp_path, "import sys; print('out', flush=True); sys.exit('no')")
    assert (ended.status, ended.late, ended.said) == (1, False, "out\nno\n")
    assert run(tmp_path, "import sys; print('out'); sys.exit('no')", errors_alone=True).said == "no\n"
    late = run(tmp_path, "import time; time.sleep(60)", limit=0.1)
    assert late.late
    assert late.status < 0
    assert 0.1 <= late.seconds < 60
