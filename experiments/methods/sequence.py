"""Learning a stream task after task, for every method that is a way of choosing and answering with slots.

The methods differ in three things only: the parameterisation of the update, which leaves a new task takes over from
the one before it, and so which leaves answer for an old task. Everything else, from the data order to the checkpoints,
is the same code for all of them.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import numpy as np

from experiments.input.shapes import samples_of
from experiments.methods.feed import task_pipeline_of, task_pipelines
from experiments.methods.job import Job, Outcome, transform
from experiments.methods.scoring import Score, logits, score
from experiments.methods.timing import seconds_per_task
from experiments.methods.training import run_steps
from share_jax.core.accounting import bytes_on_disk, nbytes
from share_jax.core.bank import TaskBank, learnt
from share_jax.core.protocol import Parameterization
from share_jax.core.slots import lift
from share_jax.nn.adapt import Adapted, adapt
from share_jax.nn.trees import flat, merged, nested
from share_jax.train import checkpoint as ckpt
from share_jax.train import damage
from share_jax.train.checkpoint import Checkpoint
from share_jax.train.losses import classification
from share_jax.train.manifest import exists, identity_of
from share_jax.train.optimizer import task_optimizer
from share_jax.train.processes import agreed
from share_jax.train.step import StepState, begin
from share_jax.typing import Tree

_REPAIR = "--resume --repair"

Carry = Literal["nothing", "adapter", "everything"]
"""What a new task starts from of the task before it; the rest of its slot is fresh."""


@dataclass(frozen=True)
class Plan:
    """A method as a choice of slots.

    Attributes:
        method: the parameterisation of each kernel's update.
        carry: what each task takes over from the one before it. Leaves that are taken over have one owner, the last
            task, so they are what answers for every earlier task: that is where forgetting comes from.
        adapts: whether any kernel is adapted; otherwise only the heads train.
    """

    method: Parameterization
    carry: Carry = "nothing"
    adapts: bool = True


@dataclass(frozen=True)
class Course:
    """How far a stream has been learnt.

    Attributes:
        store: the checkpoint.
        bank: what has been learnt.
        untrained: accuracy of the fresh model on every task.
        rows: for each learnt task, the accuracies after it, null where not evaluated.
        digests: for each learnt task, the digests of the test logits of every task evaluated after it.
        seconds: wall time by phase.
    """

    store: Checkpoint
    bank: TaskBank
    untrained: tuple[float, ...] = ()
    rows: tuple[tuple[float | None, ...], ...] = ()
    digests: tuple[tuple[str, ...], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def adapted_model(job: Job, method: Parameterization, *, adapts: bool = True) -> Adapted:
    """The backbone with adapters and one head per task."""
    targets = (job.config.targets or job.backbone.targets) if adapts else ()
    example: dict[str, Any] = {name: array[:1] for name, array in job.stream.tasks[0].train.inputs.items()}
    return adapt(
        job.backbone.model,
        {"params": job.backbone.params},
        targets=targets,
        method=method,
        heads=job.backbone.heads,
        **example,
    )


def optimizer_of(job: Job, adapted: Adapted, steps: int, *, train_shared: bool) -> Any:
    """AdamW for adapters and heads, each at its own rate."""
    return task_optimizer(
        transform(job.config, job.config.learning_rate, steps, wait=job.config.head_first),
        adapted.heads,
        train_shared=train_shared,
        head_transform=transform(job.config, job.config.head_learning_rate, steps),
    )


def open_store(job: Job, adapted: Adapted) -> Checkpoint:
    """The job's checkpoint, new or as the last run left it.

    Raises:
        FormatError: if it is another model's, or damaged and --repair is not given.
    """
    identity = identity_of(job.backbone.name, job.backbone.params, adapted)
    if not agreed(exists(job.folder)):
        return ckpt.create(job.folder, identity)
    if not job.config.repair:
        damage.check_manifest(job.folder, _REPAIR)
        store = ckpt.open_checkpoint(job.folder, identity)
        damage.check(store, _REPAIR)
        return store
    restored = damage.restore_manifest(job.folder)
    store = ckpt.open_checkpoint(job.folder, identity)
    found = damage.find(store)
    if found or restored:
        store = damage.repaired(store, found)
        job.progress.note(f"{job.name}, seed {job.seed}: repaired, goes on from {damage.state_of(store.manifest)}")
    return store


class Sequence:
    """One plan on one job: the compiled steps and the transitions of a `Course`."""

    def __init__(self, job: Job, plan: Plan) -> None:
        """Adapts the model and compiles both train steps: with the shared leaves in training, and frozen."""
        self.job, self.plan = job, plan
        self.adapted = adapted_model(job, plan.method, adapts=plan.adapts)
        params = job.backbone.params
        self.base = job.devices.base({"params": params}, self.adapted)
        key_init, self.key_train = jax.random.split(jax.random.key(job.seed))
        fresh = self.adapted.init(key_init, job.backbone.params, len(job.stream.tasks))
        self.fresh = TaskBank(fresh["shared"], fresh["tasks"])
        self.forward = job.devices.forward(self.adapted, job.backbone.blocks)
        self.predictor = job.devices.predictor(self.forward, self.adapted, params)
        self.optimizers = {
            first: optimizer_of(job, self.adapted, job.config.steps, train_shared=first) for first in (True, False)
        }
        samples = samples_of(task_pipelines(job))
        self.steps = {
            first: job.devices.train_step(
                self.forward, classification, optimizer, self.adapted, params, train_shared=first, label=job.name
            ).compile(self.start(self.fresh, 0, first), self.base, samples)
            for first, optimizer in self.optimizers.items()
            if self.fresh.shared or not first
        }

    def answering(self, bank: TaskBank, index: int) -> Tree:
        """The slot that answers for a task now: its own, with what later tasks took over from it in their state."""
        own = lift(bank.tasks, index)
        if not bank.names or self.plan.carry == "nothing":
            return own
        last = lift(bank.tasks, len(bank.names) - 1)
        if self.plan.carry == "everything":
            return last
        adapter = {path: leaf for path, leaf in flat(last).items() if path not in self.adapted.heads}
        return merged(own, nested(adapter))

    def start(self, bank: TaskBank, index: int, first: bool) -> StepState:
        """The state in which a task's training begins."""
        key = jax.random.fold_in(self.key_train, index)
        return begin(bank.shared, self.answering(bank, index), self.optimizers[first], key)

    def score(self, bank: TaskBank, index: int) -> Score:
        """How a task's test examples are answered now."""
        task = self.job.stream.tasks[index]
        slot = self.answering(bank, index)
        size, point = self.job.config.eval_batch_size, self.job.preemption.point
        return score(logits(self.predictor, self.base, bank.shared, slot, task, size, point), task.test.labels)

    def restored(self) -> Course:
        """The course as the job's checkpoint has it; the accuracies of the fresh model if it has none."""
        store = open_store(self.job, self.adapted)
        if not store.names:
            untrained = tuple(self.score(self.fresh, t).accuracy for t in range(len(self.job.stream.tasks)))
            return Course(store, self.fresh, untrained)
        bank = replace(self.fresh, shared=ckpt.load_shared(store, self.fresh.shared))
        like = lift(bank.tasks, 0)
        for name in store.names:
            bank = learnt(bank, name, bank.shared, ckpt.load_task(store, name, like))
        infos = [store.info(name) for name in store.names]
        self.job.progress.skip(self.job.config.steps * len(infos))
        return Course(
            store,
            bank,
            untrained=tuple(infos[0]["untrained"]),
            rows=tuple(tuple(info["row"]) for info in infos),
            digests=tuple(tuple(info["digests"]) for info in infos),
            seconds=dict(infos[-1]["seconds"]),
        )

    def learn_next(self, course: Course) -> Course:
        """Learns one more task, evaluates it and those before it, and saves it."""
        index = len(course.bank.names)
        task, tasks = self.job.stream.tasks[index], self.job.stream.tasks
        self.job.progress.begin(method=self.job.name, task_index=index, task_count=len(tasks), task_name=task.name)
        began = time.perf_counter()
        first = index == 0 and bool(course.bank.shared)
        store, state = run_steps(
            self.job,
            course.store,
            self.steps[first],
            self.start(course.bank, index, first),
            self.base,
            task_pipeline_of(self.job, index),
            self.job.config.steps,
            task.name,
        )
        bank = learnt(course.bank, task.name, state.shared, state.slot)
        jax.block_until_ready(bank.tasks)
        trained = time.perf_counter()
        scores = [self.score(bank, j) for j in range(min(index + 2, len(tasks)))]
        row = tuple(scores[j].accuracy if j < len(scores) else None for j in range(len(tasks)))
        seconds = {
            "train": course.seconds.get("train", 0.0) + trained - began,
            "evaluate": course.seconds.get("evaluate", 0.0) + time.perf_counter() - trained,
        }
        self.job.progress.scored(row)
        digests = tuple(each.digest for each in scores)
        info = {"row": row, "digests": digests, "seconds": seconds, "untrained": course.untrained}
        store = ckpt.save_task(store, task.name, state.slot, info, shared=state.shared if first else None)
        self.job.preemption.released()
        return Course(store, bank, course.untrained, (*course.rows, row), (*course.digests, digests), seconds)

    def outcome(self, course: Course) -> Outcome:
        """What was found, once every task is learnt."""
        changed = sum(then[j] != course.digests[-1][j] for j, then in enumerate(course.digests))
        return Outcome(
            accuracy=np.array([[np.nan if a is None else a for a in row] for row in course.rows]),
            untrained=np.array(course.untrained),
            seconds=course.seconds,
            params=self.params(course.bank),
            bytes=stored_bytes(course, self.adapted, once=self.plan.carry != "nothing"),
            extra={"tasks_with_changed_logits": changed, "seconds_per_task": seconds_per_task(course.store)},
        )

    def params(self, bank: TaskBank) -> dict[str, int | float | None]:
        """Parameter counts; leaves that are carried over are held once for all tasks."""
        config, tasks = self.job.config, len(self.job.stream.tasks)
        counts = self.adapted.counts(
            self.job.backbone.params,
            {"shared": bank.shared, "tasks": bank.tasks},
            tasks,
            separate_rank=config.rank,
        )
        if self.plan.carry != "nothing":
            counts = counts.held_once(one_head=self.plan.carry == "everything")
        return counts.as_dict()


def stored_bytes(course: Course, adapted: Adapted, *, once: bool) -> dict[str, int]:
    """Bytes of the checkpoint's files, and of the arrays in them.

    Args:
        course: the course when all is learnt.
        adapted: whose slots these are.
        once: whether one adapter serves all tasks; the files then hold its state after each task, the arrays it once.
    """
    root, kept = course.store.root, course.store.manifest
    slot = flat(lift(course.bank.tasks, 0))
    heads = nbytes([leaf for path, leaf in slot.items() if path in adapted.heads])
    adapter = nbytes(slot) - heads
    return {
        "files_shared": bytes_on_disk(root / kept.shared["path"]) if kept.shared else 0,
        "files_tasks": sum(bytes_on_disk(root / record["path"]) for record in kept.tasks.values()),
        "file_manifest": bytes_on_disk(root / "manifest.json"),
        "arrays_shared": nbytes(course.bank.shared) + (adapter if once else 0),
        "arrays_per_task": 0 if once else adapter,
        "arrays_head": heads,
    }


def learn(job: Job, plan: Plan) -> Outcome:
    """Learns every task of the job's stream in order, evaluating and saving after each.

    A run that was stopped goes on from its last checkpoint, with the same batches and the same result.
    """
    began = time.perf_counter()
    sequence = Sequence(job, plan)
    course = sequence.restored()
    course.seconds.setdefault("prepare", time.perf_counter() - began)
    while len(course.rows) < len(job.stream.tasks):
        prepare = course.seconds["prepare"]
        course = sequence.learn_next(course)
        course.seconds["prepare"] = prepare
    return sequence.outcome(course)
