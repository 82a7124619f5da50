"""Learning a stream task after task, for every method that is a way of choosing and answering with slots.

The methods differ in their `Plan` only: the parameterisation of the update, which leaves a new task takes over from
the one before it, and so which leaves answer for an old task, and what an extension adds. Everything else, from the
data order to the checkpoints, is the same code for all of them.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.algorithms.batches import task_pipeline_of
from experiments.algorithms.evaluation import Predict, arranged
from experiments.algorithms.hooks import train_task
from experiments.algorithms.job import Job, Outcome, example_of, peak_rate, transform
from experiments.algorithms.logits_cache import LogitsCache
from experiments.algorithms.objective import loss_of, of_own_outputs
from experiments.algorithms.plan import MEMORY, Extension, Heads, MethodContext, Plan
from experiments.algorithms.samples import written_samples
from experiments.algorithms.store import bytes_of_files, open_store
from experiments.algorithms.stream_state import StreamState, learn_stream, lengthened, restored
from experiments.algorithms.token_checks import executed_answers
from experiments.algorithms.token_scoring import outputs_of
from experiments.data.pipeline import Pipeline
from experiments.data.shapes import samples_of
from share_jax.bank.accounting import count, nbytes, separate_lora_count
from share_jax.bank.bank import TaskBank, with_task
from share_jax.bank.slots import read_slot
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.layers.kernel_matrix import matrix_shape
from share_jax.layers.targets import match
from share_jax.linen.adapted_model import Adapted, adapt
from share_jax.parameterizations.base import Parameterization
from share_jax.train.optimizer import task_optimizer
from share_jax.train.starting_slot import started
from share_jax.train.step import StepState, init_state
from share_jax.trees import flat, merged, nested
from share_jax.typing import PRNGKey, Tree

__all__ = ["Extension", "Heads", "Plan", "Sequence", "StreamState", "learn"]


def adapted_model(job: Job, method: Parameterization, *, adapts: bool = True, owned: tuple[str, ...] = ()) -> Adapted:
    """The backbone with adapters and one head per task; `owned` as in `Plan`."""
    targets = (job.config.targets or job.backbone.targets) if adapts else ()
    example: dict[str, Any] = example_of(job)
    return adapt(
        job.backbone.model,
        {"params": job.backbone.params},
        targets=targets,
        method=method,
        heads=(*job.backbone.heads, *owned),
        **example,
    )


def optimizer_of(
    job: Job,
    adapted: Adapted,
    steps: int,
    *,
    train_shared: bool,
    heads: Collection[str] | None = None,
    frozen: Collection[str] = (),
) -> Any:
    """AdamW for adapters and heads, each at its own rate.

    Args:
        job: for its configuration and the method's peak rate.
        adapted: the model.
        steps: updates in the task.
        train_shared: whether what is shared trains.
        heads: paths of what trains at the heads' rate; all that the model's tasks own whole if None.
        frozen: names of leaves that do not train.
    """
    rest = transform(job.config, peak_rate(job), steps, wait=job.config.head_first)
    if frozen:
        rest = optax.multi_transform({True: rest, False: optax.set_to_zero()}, lambda tree: _trains(tree, frozen))
    return task_optimizer(
        rest,
        adapted.heads if heads is None else heads,
        train_shared=train_shared,
        method=adapted.method,
        head_transform=transform(job.config, job.config.head_learning_rate, steps),
    )


def _trains(tree: Any, frozen: Collection[str]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: str(path[-1].key) not in frozen, tree)


def _on_host(memory: Tree) -> dict[str, Any]:
    return jax.tree.map(np.asarray, dict(memory))  # scalars too, which a checkpoint would give back as another type


class Sequence:
    """One plan on one job: the compiled steps and the transitions of a `StreamState`."""

    def __init__(self, job: Job, plan: Plan) -> None:
        """Adapts the model and compiles both train steps: with the shared leaves in training, and frozen."""
        self.job, self.plan, self.answers = job, plan, answers = arranged(job, plan)
        self.adapted = adapted_model(job, plan.method, adapts=plan.adapts, owned=plan.owned)
        params = job.backbone.params
        heads = match(job.backbone.heads, flat(params), what="head")
        self.scene = MethodContext(
            job, plan, self.adapted, heads, job.devices.forward(self.adapted, job.backbone.blocks)
        )
        key_init, self.key_train = jax.random.split(jax.random.key(job.seed))
        self.fresh = self._fresh(key_init)
        self.answered = LogitsCache()
        self.memory = _on_host(plan.extension.memory(self.scene, self.fresh))
        self.base = job.devices.base(self._variables(self.fresh, self.memory, 0), self.adapted)
        self.predictor = job.devices.predictor(plan.extension.answer(self.scene), self.adapted, params)
        self.optimizers = {
            first: optimizer_of(
                job,
                self.adapted,
                job.config.steps,
                train_shared=first,
                heads=heads,
                frozen=plan.frozen,
            )
            for first in (True, False)
        }
        inner = loss_of(job.stream)
        if plan.own_outputs and answers.starts:
            inner = of_own_outputs(inner, answers.starts)
        forward, loss = plan.extension.forward(self.scene), plan.extension.loss(inner)
        samples = samples_of([self.batches(index, self.memory) for index in range(self.scene.tasks)])
        self.steps = {
            first: job.devices.compiled(
                job.devices.train_step(forward, loss, optimizer, self.adapted, params, train_shared=first),
                self.start(self.fresh, 0, first),
                self.base,
                samples,
                label=job.name,
            )
            for first, optimizer in self.optimizers.items()
            if self.fresh.shared or not first
        }

    def _fresh(self, key: PRNGKey) -> TaskBank:
        tasks = self.scene.tasks
        fresh = self.adapted.init(key, self.job.backbone.params, tasks)
        stack = flat(fresh["tasks"])
        if self.plan.heads == "all":
            stack |= {path: jnp.repeat(stack[path][:, None], tasks, axis=1) for path in self.scene.heads}
        keys = jax.random.split(jax.random.fold_in(self.key_train, tasks), tasks)  # steps use 0 to tasks - 1
        stack |= jax.vmap(lambda key: self.plan.extension.leaves(self.scene, key))(keys)
        return TaskBank(fresh["shared"], nested(stack))

    def _variables(self, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        view = self.plan.extension.view(self.scene, bank, memory, index)
        params = self.scene.params(bank, index)
        return {"params": params, **({MEMORY: jax.tree.map(jnp.asarray, view)} if view else {})}

    def base_for(self, bank: TaskBank, memory: Tree, index: int) -> Tree:
        """What the steps read and do not train, while a task is learnt and when it and those before it answer."""
        if self.plan.carry != "sum" and MEMORY not in self.base:
            return self.base
        return self.job.devices.base(self._variables(bank, memory, index), self.adapted)

    def batches(self, index: int, memory: Tree) -> Pipeline:
        """The train batches of a task."""
        return self.plan.extension.batches(self.scene, task_pipeline_of(self.job, index), memory, index)

    def _slot(self, bank: TaskBank, index: int, kept: Callable[[str], bool]) -> dict[str, Any]:
        """A task's own slot, but for the leaves that are kept of the last task."""
        own = read_slot(bank.tasks, index)
        if not bank.names:
            return own
        last = flat(read_slot(bank.tasks, len(bank.names) - 1))
        return merged(own, nested({path: leaf for path, leaf in last.items() if kept(path)}))

    def answering(self, bank: TaskBank, index: int) -> dict[str, Any]:
        """The slot that answers for a task now: its own, with what later tasks changed in its last state; one head."""
        slot = self._slot(bank, index, self.scene.changes)
        if self.plan.heads != "all":
            return slot
        leaves = flat(slot)
        return nested(leaves | {path: leaves[path][self.scene.head_of(index)] for path in self.scene.heads})

    def start(self, bank: TaskBank, index: int, first: bool, memory: Tree | None = None) -> StepState:
        """The state in which a task's training begins; without a memory, a state of its shapes."""
        adds, heads = self.plan.carry == "sum", self.scene.heads
        slot = self._slot(bank, index, lambda path: self.scene.changes(path) and (path in heads or not adds))
        if self.plan.carry == "nothing":
            slot = started(slot, bank, self.job.config.start_from, heads)
        if memory is not None:
            slot = self.plan.extension.start(self.scene, bank, memory, index, slot)
        return init_state(bank.shared, slot, self.optimizers[first], jax.random.fold_in(self.key_train, index))

    def predict(self, base: Tree, bank: TaskBank) -> Predict:
        """How the slots of a bank answer now."""

        def logits(index: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            slot = self.answering(bank, index)
            return outputs_of(self.job, self.predictor, base, bank.shared, slot, inputs)

        # After the last task every answer is computed anew, so that logits that have not changed are measured.
        return (
            logits
            if len(bank.names) == self.scene.tasks
            else self.answered.unless_changed(logits, lambda index: (base, bank.shared, self.answering(bank, index)))
        )

    def restored(self) -> StreamState:
        """The course as the job's checkpoint has it; the accuracies of the fresh model if it has none."""
        store = open_store(self.job, self.adapted)
        if not store.names:
            untrained = self.answers.untrained(self.predict(self.base, self.fresh))
            return StreamState(store, self.fresh, self.memory, untrained)
        shared = ckpt.load_shared(store, self._to_save(self.fresh.shared, self.memory))
        memory = _on_host(shared.pop(MEMORY, {}))
        bank = replace(self.fresh, shared=shared)
        like = read_slot(bank.tasks, 0)
        for name in store.names:
            bank = with_task(bank, name, bank.shared, ckpt.load_task(store, name, like))
        return restored(self.job, store, self.answers, bank, memory)

    @staticmethod
    def _to_save(shared: Tree, memory: dict[str, Any]) -> dict[str, Any]:
        return {**shared, **({MEMORY: memory} if memory else {})}

    def learn_next(self, course: StreamState) -> StreamState:
        """Learns one more task, evaluates it and those before it, and saves it."""
        index = len(course.bank.names)
        task, tasks = self.job.stream.tasks[index], self.job.stream.tasks
        self.job.progress.begin(method=self.job.name, task_index=index, task_count=len(tasks), task_name=task.name)
        began = time.perf_counter()
        first = index == 0 and bool(course.bank.shared)
        base = self.base_for(course.bank, course.memory, index)
        begin, pipeline = self.start(course.bank, index, first, course.memory), self.batches(index, course.memory)
        store, state = train_task(self.job, course.store, self.steps[first], begin, base, pipeline, task.name)
        bank = with_task(course.bank, task.name, state.shared, state.slot)
        memory = _on_host(self.plan.extension.after(self.scene, bank, course.memory, index))
        jax.block_until_ready((bank.tasks, memory))
        trained = time.perf_counter()
        router = self.answers.learnt(course.router, index)
        row = self.answers.row(self.predict(base, bank), index, router)
        seconds = lengthened(course.seconds, train=trained - began, evaluate=time.perf_counter() - trained)
        self.job.progress.scored(row.accuracies)
        info = course.info(row, seconds, digests=row.digests)
        shared = self._to_save(state.shared, memory) if first or memory else None
        store = ckpt.save_task(store, task.name, state.slot, info, shared=shared, router=router)
        self.job.preemption.released()
        return StreamState(store, bank, memory, course.untrained, (*course.infos, info), router, seconds)

    def outcome(self, course: StreamState) -> Outcome:
        """What was found, once every task is learnt."""
        changed = sum(then[j] != course.digests[-1][j] for j, then in enumerate(course.digests))
        found = dict(self.plan.extension.findings(self.scene, course.bank, course.memory))
        if self.plan.carry == "nothing":
            found |= written_samples(self.job, self.adapted, course.bank)
            found |= executed_answers(self.job, self.adapted, course.bank, course.found[-1].get("right", {}))
        sizes = stored_bytes(course, self.scene.heads, once=self._once, head_sets=self.scene.head_sets)
        params = self.params(course.bank)
        return course.outcome(self.answers, params, sizes, tasks_with_changed_logits=changed, **found)

    @property
    def _once(self) -> bool:
        """Whether one adapter answers for all tasks."""
        return self.plan.carry == "adapter" and not self.plan.extension.keeps_every

    def params(self, bank: TaskBank) -> dict[str, int | float | None]:
        """Parameter counts; leaves that are carried over are held once for all tasks."""
        config, params, heads = self.job.config, self.job.backbone.params, self.scene.heads
        trees = {"shared": bank.shared, "tasks": bank.tasks}
        counts = self.adapted.counts(params, trees, self.scene.tasks, separate_rank=config.rank)
        slot = flat(read_slot(bank.tasks, 0))
        classifier = count([slot[path] for path in heads])
        counts = replace(
            counts,
            base=count(params) - count([flat(params)[path] for path in heads]),
            per_task=count(slot) - classifier,
            heads_per_task=classifier // self.scene.head_sets,
            separate_per_task=counts.separate_per_task or self._separate(counts.per_task),
        )
        if self._once:
            counts = counts.held_once()
        if self.plan.heads == "one":
            counts = replace(counts, **self.answers.one_head_counts(counts.heads_per_task))
        return counts.as_dict()

    def _separate(self, per_task: int) -> int:
        """What a LoRA on the run's kernels holds, for a method that adapts the model in another way."""
        if self.plan.adapts or not (per_task or self.plan.owned):
            return 0
        leaves = flat(self.job.backbone.params)
        paths = match(self.job.config.targets or self.job.backbone.targets, self.adapted.kernels, what="target")
        shapes = [matrix_shape(leaves[path].shape, self.adapted.kernels[path][1]) for path in paths]
        return separate_lora_count(shapes, self.job.config.rank)


def stored_bytes(course: StreamState, heads: Collection[str], *, once: bool, head_sets: int = 1) -> dict[str, int]:
    """Bytes of the checkpoint's files, and of the arrays in them.

    Args:
        course: the course when all is learnt.
        heads: paths within a slot of the classifier's leaves.
        once: whether one adapter serves all tasks; the files then hold its state after each task, the arrays it once.
        head_sets: heads within a slot.
    """
    slot = flat(read_slot(course.bank.tasks, 0))
    own_heads = nbytes([slot[path] for path in heads])
    adapter = nbytes(slot) - own_heads
    return {
        **bytes_of_files(course.store),
        "arrays_shared": nbytes(course.bank.shared) + (adapter if once else 0),
        "arrays_per_task": 0 if once else adapter,
        "arrays_head": own_heads // head_sets,
        **({"arrays_memory": nbytes(course.memory)} if course.memory else {}),
    }


def learn(job: Job, plan: Plan) -> Outcome:
    """Learns every task of the job's stream in order, evaluating and saving after each.

    A run that was stopped goes on from its last checkpoint, with the same batches and the same result.
    """
    began = time.perf_counter()
    return learn_stream(Sequence(job, plan), began)
