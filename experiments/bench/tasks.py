"""Suite `tasks`: what T tasks cost, for T of 1, 10, 100 and 1,000.

The text encoder with 32 tokens, rank 8 on every FFN-down kernel. For each T, in turn: a train step of one more task;
the begin and the end of a task (its slot lifted out of the stack, and put back); saving it into a checkpoint that
holds T tasks; start-up, which opens that checkpoint and loads everything. The checkpoints of T tasks are one saved
task's folder copied under T names. Also what XLA compiles while the first, second and later tasks are learnt.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from experiments.bench.compiles import compilations
from experiments.bench.peer import Peer
from experiments.bench.steps import OURS, adapted_of, forms, step_case, stepper
from experiments.bench.subjects import FFN_DOWN, Subject, minilm
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Key, ratio, timed
from share_jax.bank.accounting import bytes_on_disk, nbytes
from share_jax.bank.bank import TaskBank, next_slot, with_task
from share_jax.bank.slots import read_slot
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.checkpoint.manifest import identity_of
from share_jax.linen.adapted_model import Adapted
from share_jax.train.learner import Learner

COUNTS = (1, 10, 100, 1000)
SLOW_EVERY = 4
"""Start-up of many tasks takes part in every so many rounds."""


def named(count: int) -> str:
    """So many tasks, in words.

    >>> named(1), named(1000)
    ('1 task', '1,000 tasks')
    """
    return "1 task" if count == 1 else f"{count:,} tasks"


def store_of(root: Path, subject: Subject, adapted: Adapted, bank: TaskBank) -> Checkpoint:
    """A checkpoint that holds every task of the bank: the first is saved, the others are copies of its folder."""
    shutil.rmtree(root, ignore_errors=True)
    store = ckpt.create(root, identity_of(subject.name, subject.params, adapted))
    store = ckpt.save_task(store, bank.names[0], read_slot(bank.tasks, 0), {}, shared=bank.shared)
    record = store.record(bank.names[0])
    tasks = dict(store.manifest.tasks)
    for number, name in enumerate(bank.names[1:], start=1):
        folder = f"tasks/{number:04d}.1"
        shutil.copytree(root / record["path"], root / folder)
        tasks[name] = {**record, "path": folder}
    return ckpt.committed(store, replace(store.manifest, tasks=tasks))


def loaded(root: Path, like: TaskBank) -> TaskBank:
    """Opens a checkpoint and loads what is shared and every task."""
    store = ckpt.open_checkpoint(root)
    shared = ckpt.load_shared(store, like.shared)
    slot = jax.tree.map(np.asarray, read_slot(like.tasks, 0))
    slots = [ckpt.load_task(store, name, slot) for name in store.names]
    return TaskBank(shared, jax.tree.map(lambda *leaves: np.stack(leaves), *slots), store.names)


def saving(store: Checkpoint, slot: Any) -> Callable[[], float]:
    """Saves one more task, with the time of taking it back again left out."""
    held = [0]

    def run() -> float:
        held[0] += 1
        before = store.manifest
        began = time.perf_counter()
        after = ckpt.save_task(store, f"one more {held[0]}", slot, {})
        seconds = time.perf_counter() - began
        ckpt.committed(after, replace(before, version=before.version))
        return seconds

    return run


def cases_of(subject: Subject, adapted: Adapted, count: int, root: Path) -> list[Case]:
    """The cases of one T."""
    fresh = adapted.init(jax.random.key(7), subject.params, count + 1)
    names = tuple(f"t{number}" for number in range(count))
    bank = TaskBank(fresh["shared"], fresh["tasks"], names)
    call, memory = stepper(subject, adapted, slots=count)
    jax.block_until_ready(call())
    store = store_of(root, subject, adapted, bank)
    where = f"{named(count)}: "
    step = {
        "temporary_bytes": int(memory.temp_size_in_bytes),
        "argument_bytes": int(memory.argument_size_in_bytes),
        "stack_bytes": nbytes(bank.tasks),
    }
    disk = {"bytes": bytes_on_disk(root), "bytes_per_task": bytes_on_disk(root / store.record("t0")["path"])}
    slow = SLOW_EVERY if count > 100 else 1
    return [
        Case(f"{where}step", OURS, timed(call), step),
        Case(
            f"{where}begin and end of a task", OURS, timed(lambda: with_task(bank, "new", bank.shared, next_slot(bank)))
        ),
        Case(f"{where}checkpoint, one more task", OURS, saving(store, read_slot(bank.tasks, count)), disk),
        Case(f"{where}start-up, all tasks", OURS, timed(lambda: loaded(root, bank).tasks), disk, every=slow),
    ]


def compiled(subject: Subject, adapted: Adapted) -> dict[str, int]:
    """How many programs are compiled while each of four tasks is learnt through `Learner.learn`, in two steps each."""
    learner = Learner(adapted, subject.base, optax.adamw(1e-3))
    bank = learner.start(adapted.init(jax.random.key(8), subject.params, 4))
    found = {}
    for name in ("first", "second", "third", "fourth"):
        held: list[TaskBank] = []
        call = lambda name=name, bank=bank, held=held: held.append(learner.learn(bank, name, [subject.batch] * 2))  # noqa: E731
        found[name] = compilations(call)
        bank = held[0]
    return found


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite; it needs no peer."""
    subject = minilm(8 if options.tiny else 32, tiny=options.tiny)
    by_name = {form.name: form for form in forms()}
    adapted = adapted_of(subject, FFN_DOWN, by_name["shared_a later task"].method)
    programs = compiled(subject, adapted)
    counts = (1, 3) if options.tiny else COUNTS
    cases = [
        step_case(subject, FFN_DOWN, by_name[name], "")
        for name in ("separate LoRA", "shared_a first task", "shared_a later task")
    ]
    for count in counts:
        options.notify(f"preparing {count:,} tasks")
        cases += cases_of(subject, adapted, count, options.folder / f"tasks-{count}")
    times, rows = raced(cases, options.rounds, options)
    for count in counts:
        shutil.rmtree(options.folder / f"tasks-{count}")
    return SuiteResult(rows, ratios_of(times, counts, programs), {"compilations": programs})


def ratios_of(
    times: dict[Key, dict[int, float]], counts: tuple[int, ...], programs: dict[str, int]
) -> dict[str, float]:
    """Many tasks to ten, a later task to a separate LoRA, and the compilations after the first task."""
    few = counts[1]
    found = {
        "step of task 2 / separate LoRA": ratio(times["shared_a later task", OURS], times["separate LoRA", OURS]),
        "compilations after the first task": float(sum(programs.values()) - programs["first"]),
        "compilations after the second task": float(programs["third"] + programs["fourth"]),
    }
    for count in counts:
        if count != few:
            for what, name in (
                ("step", "step with {} slots / {} slots"),
                ("begin and end of a task", "begin and end of a task, {} / {} tasks"),
                ("checkpoint, one more task", "checkpoint of one more task, {} / {} tasks"),
            ):
                pair = (times[f"{named(n)}: {what}", OURS] for n in (count, few))
                found[name.format(f"{count:,}", few)] = ratio(*pair)
    return found
