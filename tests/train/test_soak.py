"""Two hundred tasks in a row: memory, the compile cache and step time stay flat, and no old task changes a bit."""

import gc
import time
from pathlib import Path
from statistics import median

import jax
import numpy as np
import optax
import pytest
from jax import monitoring
from learning import two_layers

from share_jax.bank import slots
from share_jax.train import divergence

TASKS, STEPS, WARM = 200, 20, 136
"""The stack last grows at task 129 (128 to 256 slots): from `WARM` on, nothing may be compiled or grow."""

KEPT = {slots._read: 9, slots._write: 9, divergence._finite: 2}
"""Jitted functions of the library, and the programs that each may add: one for each of 1, 2, 4, ..., 256 slots."""

MORE_BYTES = 8 * 2**20
"""Bound on what the process may gain over the last 64 tasks; one more leaked program or stack would exceed it."""


def resident() -> int:
    """Bytes of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_two_hundred_tasks_leave_memory_compile_cache_step_time_and_logits_as_they_were() -> None:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((32, 6)).astype(np.float32)
    learner, bank = two_layers(x, optax.adamw(1e-2))
    compiled: list[str] = []
    programs = {function: function._cache_size() for function in KEPT}
    monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None
    )
    logits, seconds, grown = [], [], []
    for task in range(TASKS):
        labels = draw.integers(0, 2, len(x)).astype(np.int32)
        began = time.perf_counter()
        bank = learner.learn(bank, f"{task}", [{"inputs": x, "labels": labels}] * STEPS)
        jax.block_until_ready(bank.tasks)
        seconds.append(time.perf_counter() - began)
        logits.append(np.array(learner.predict(bank, f"{task}", x)))  # a copy: a view would keep the array alive
        gc.collect()
        grown.append((resident(), len(jax.live_arrays()), len(compiled)))
    for task, before in enumerate(logits):
        np.testing.assert_array_equal(np.asarray(learner.predict(bank, f"{task}", x)), before)
    assert len({each.tobytes() for each in logits}) == TASKS
    warm, last = grown[WARM], grown[-1]
    print(f"resident {warm[0] / 2**20:.1f} -> {last[0] / 2**20:.1f} MiB, live arrays {warm[1]} -> {last[1]}")
    print(f"compiled {warm[2]} -> {last[2]}; step time, tasks 10 to 73 and 136 to 199: ", end="")
    print(f"{median(seconds[10:74]) / STEPS * 1e3:.3f} and {median(seconds[WARM:]) / STEPS * 1e3:.3f} ms")
    assert last[1] == warm[1]
    assert last[2] == warm[2]
    assert last[0] - warm[0] < MORE_BYTES
    assert median(seconds[WARM:]) < 2 * median(seconds[10:74])
    for function, more in KEPT.items():
        assert function._cache_size() - programs[function] <= more
    steps = [phase.step.run._cache_size() for phase in (learner._first, learner._later)]
    assert steps == [1, 1]
