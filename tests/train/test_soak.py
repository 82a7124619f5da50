"""Many tasks in a row: memory, the compile cache and step time stay flat, and no old task changes a bit."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from jax import monitoring
from learning import two_layers
from tiny_decoders import tiny

import share_jax
from share_jax.bank import slots
from share_jax.bank.bank import TaskBank
from share_jax.models.generation import generate
from share_jax.train import divergence
from share_jax.train.token_losses import next_token

STEPS = 20

MORE_BYTES = 8 * 2**20
"""Bound on what the process may gain over the last tasks; one more leaked program or stack would exceed it."""


class Course(NamedTuple):
    """So many tasks of one learner.

    Attributes:
        learner: to learn with.
        bank: empty.
        labels: of a new task, by its number.
        inputs: the same for every task.
        answer: (bank, task's number) to what must never change.
        tasks: their number.
        warm: from this task on nothing may be compiled or grow: the stack has grown for the last time before it.
    """

    learner: share_jax.Learner
    bank: TaskBank
    labels: Callable[[int], np.ndarray]
    inputs: Any
    answer: Callable[[TaskBank, int], np.ndarray]
    tasks: int
    warm: int


def layers() -> Course:
    """Two hundred tasks of two layers."""
    x = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    learner, bank = two_layers(x, optax.adamw(1e-2))

    def labels(task: int) -> np.ndarray:
        return np.random.default_rng(task).integers(0, 2, len(x)).astype(np.int32)

    def answer(bank: TaskBank, task: int) -> np.ndarray:
        return np.array(learner.predict(bank, f"{task}", x))  # a copy: a view would keep the array alive

    return Course(learner, bank, labels, x, answer, 200, 136)


def decoder() -> Course:
    """A hundred tasks of a tiny Llama, each a text of its own, and what it writes."""
    model, base, _ = tiny("llama")
    words = model.config.vocab_size
    ids = np.random.default_rng(0).integers(1, words, (8, 12)).astype(np.int32)
    adapted = share_jax.adapt(model, base, ids, targets=r"layer_.*kernel", method=share_jax.SharedA(rank=4))
    learner = share_jax.Learner(adapted, base, optax.adamw(1e-2), next_token)
    bank = learner.start(adapted.init(jax.random.key(0), base["params"], 1))

    def labels(task: int) -> np.ndarray:
        return np.random.default_rng(task).integers(1, words, ids.shape).astype(np.int32)

    def answer(bank: TaskBank, task: int) -> np.ndarray:
        found = generate(adapted, bank, task, ids[:2, :4].tolist(), params=base["params"], max_tokens=4, stop=())
        logits = np.array(learner.predict(bank, f"{task}", {"input_ids": ids}))
        return np.concatenate([logits.ravel(), *(each.tokens for each in found)])

    return Course(learner, bank, labels, {"input_ids": ids}, answer, 100, 68)


def resident() -> int:
    """Bytes of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
@pytest.mark.parametrize("made", [layers, decoder])
def test_many_tasks_leave_memory_compile_cache_step_time_and_answers_as_they_were(made: Callable[[], Course]) -> None:
    course = made()
    learner, bank, (tasks, warmed) = course.learner, course.bank, course[-2:]
    compiled: list[str] = []
    doublings = (tasks - 1).bit_length() + 1  # one program for each of 1, 2, 4, ... slots
    kept = {slots._read: doublings, slots._write: doublings, divergence._finite: 2}
    programs = {function: function._cache_size() for function in kept}
    monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None
    )
    answers, seconds, grown = [], [], []
    for task in range(tasks):
        batch = {"inputs": course.inputs, "labels": course.labels(task)}
        began = time.perf_counter()
        bank = learner.learn(bank, f"{task}", [batch] * STEPS)
        jax.block_until_ready(bank.tasks)
        seconds.append(time.perf_counter() - began)
        answers.append(course.answer(bank, task))
        gc.collect()
        grown.append((resident(), len(jax.live_arrays()), len(compiled)))
    for task, before in enumerate(answers):
        np.testing.assert_array_equal(course.answer(bank, task), before)
    assert len({each.tobytes() for each in answers}) == tasks
    warm, last, early = grown[warmed], grown[-1], seconds[10 : 10 + tasks - warmed]
    print(f"resident {warm[0] / 2**20:.1f} -> {last[0] / 2**20:.1f} MiB, live arrays {warm[1]} -> {last[1]}")
    print(f"compiled {warm[2]} -> {last[2]}; later / earlier step time {median(seconds[warmed:]) / median(early):.3f}")
    assert last[1] == warm[1]
    assert last[2] == warm[2]
    assert last[0] - warm[0] < MORE_BYTES
    assert median(seconds[warmed:]) < 2 * median(early)
    for function, more in kept.items():
        assert function._cache_size() - programs[function] <= more
    steps = [phase.step.run._cache_size() for phase in (learner._first, learner._later)]
    assert steps == [1, 1]
