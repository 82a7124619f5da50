"""Suite `adapters` where a peer does not end: its row is a lower bound, and no ratio has it."""

import sys

import numpy as np
import pytest

from experiments.bench import adapters
from experiments.bench.adapter_files import TINY, make
from experiments.bench.adapters import NotEndedError, Part, System, cases_of, command, ratios_of
from experiments.bench.page import results_table
from experiments.bench.timing import race, summary

HANGS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def test_a_command_past_its_time_is_ended():
    facts = {}
    with pytest.raises(NotEndedError, match=r"not ended in 0\.1 s"):
        command(HANGS, {}, facts, 0.1)
    assert facts["peak_bytes"] > 0
    assert 0 < command([sys.executable, "-S", "-c", ""], {}, facts, 60) < 60


def test_a_peer_that_does_not_end_is_a_lower_bound_in_record_and_page(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "LIMIT", 0.2)
    folders = make(tmp_path / "in", 2, TINY)
    peer = System("lorashare", lambda *job: HANGS, lambda *job: pytest.fail("nothing is exported"))
    part = Part("7B, tiny", TINY, 1, once=True)
    cases = cases_of(peer, folders[:1], folders[1], tmp_path, {}, part=part, whole=True, every=3)
    times = race(cases, 3, pause=0)
    rows = [summary(case, times[case.key]) for case in cases]
    assert [(row["case"], row["median_s"], row["repetitions"], row["not_ended_s"]) for row in rows] == [
        ("7B, tiny: compress, whole command", 0.2, 1, 0.2)
    ]
    assert "not ended in 0.2 s" in results_table(rows)
    name = rows[0]["case"]
    own = [{"case": name, "system": system, "error": error, "peak_bytes": 2**30 * error}
           for system, error in (("share_jax", 0.5), ("vlora", 1.0))]  # fmt: skip
    times |= {(name, "share_jax"): {0: 2.0, 1: 3.0, 2: 2.0}, (name, "vlora"): {0: 4.0, 1: 6.0, 2: 8.0}}
    found = ratios_of(times, [*rows, *own], "7B, tiny")
    assert found[f"{name}, ours / faster peer"] == 0.5
    assert found["7B, tiny: error, ours / best peer"] == 0.5
    assert found["7B, tiny: compress, peak memory, ours / leaner peer"] == 0.5
    alone = ratios_of(times, [*rows, own[0]], "7B, tiny")
    np.testing.assert_equal(list(alone), ["7B, tiny: compress, peak memory / 3 GiB"])
