"""Freed memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

from share_jax.runtime.malloc import keep_freed

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
if sys.argv[1] == "keep":
    from share_jax.runtime.malloc import keep_freed
    assert keep_freed()
x = jax.random.normal(jax.random.key(0), (4096, 8))
run = jax.jit(lambda x: (jnp.tanh(x @ x.T) @ x)[:, 0]).lower(x).compile()
pages = run.memory_analysis().temp_size_in_bytes / resource.getpagesize()
assert pages > 2**13, pages  # more than what the C library keeps by itself
counts, results = [], []
for _ in range(21):  # until the pool has found its size, some runs map anew
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    results.append(run(x).block_until_ready())
    counts.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / pages)
print(sorted(counts)[10], [float(x[7]) for x in results])
"""


def faults(how: str) -> tuple[float, str]:
    """Mappings in a run for each page of the program's temporary memory, the median of runs, and what it computed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    part, _, result = done.stdout.strip().partition(" ")
    return float(part), result


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_program_that_is_run_again_finds_its_memory_mapped() -> None:
    """Without the call every page is mapped anew in every run, unless the system has huge pages for all."""
    kept, result = faults("keep")
    plain, expected = faults("plain")
    print(f"mappings for each page: {plain:.3f} without, {kept:.3f} with")
    assert kept < 0.05
    assert result == expected


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed()


def test_the_measurement_races_both_ways_in_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its arithmetic, on answers that are told here; the processes themselves are run by hand."""
    from experiments.bench import memory

    answers = {
        way: [{"seconds": s, "mapped": mapped, "megabytes": 100.0} for s in (0.2, 0.4, 0.6)]
        for way, mapped in (("plain", 90), ("kept", 0))
    }
    for answer in answers["kept"]:
        answer["seconds"] *= 0.5
    monkeypatch.setattr(memory, "race", lambda name, rounds: answers)
    assert memory.main(["--rounds", "3"]) == 0
    said = capsys.readouterr().out
    assert "vit, plain: 400 ms, 90 pages mapped a step, 100 MB at most" in said
    assert "vit, kept: 200 ms, 0 pages" in said
    assert "minilm: kept / plain 0.50" in said
