"""One LoRA trained on all tasks at once, with a head per task: what a model without the stream's order can reach.

No method of continual learning but a reference point, the usual upper bound; Li and Hoiem 2016 (arXiv 1606.09282), the
source of `lwf_lora`, compare with it too. Without a task id, one head for the outputs of all tasks takes the place of
theirs. It needs the data of every task at the same time, which a continual learner does not have. Its budget is that of
the whole stream: as many updates as all tasks together, each batch drawn from all of them.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.algorithms.batches import pipeline_of
from experiments.algorithms.evaluation import OneHead, Predict, with_one_head
from experiments.algorithms.hooks import train_task
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import adapted_model, optimizer_of, stored_bytes
from experiments.algorithms.objective import loss_of, of_tokens
from experiments.algorithms.scoring import score_split
from experiments.algorithms.store import open_store
from experiments.algorithms.stream_state import StreamState
from experiments.algorithms.token_scoring import outputs_of
from experiments.algorithms.token_tests import further_tests
from experiments.config.methods import Method
from experiments.data.lazy import joined
from experiments.data.pipeline import Pipeline
from experiments.data.shapes import samples_of
from experiments.streams.protocols import CLASS, TASK
from share_jax.bank.accounting import ParameterCounts
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import TaskSlots, gather, read_slot
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.linen.adapted_model import Adapted
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.step import Forward, init_state
from share_jax.trees import flat, merged, nested
from share_jax.typing import PRNGKey, Tree

ALL = "all tasks"


def _with_heads(adapted: Adapted, slot: Tree, task: jax.Array) -> dict[str, Any]:
    """The one adapter with the head of a task: heads are stacked, the adapter is not."""
    leaves = flat(slot)
    heads = {path: leaves[path] for path in adapted.heads}
    return merged(slot, nested(gather(heads, task)))


def _forward(job: Job, adapted: Adapted) -> Forward:
    inner = job.devices.forward(adapted, job.backbone.blocks)

    def forward(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        own = {name: array for name, array in inputs.items() if name != "task"}
        leaves = flat(slot)
        heads = TaskSlots(nested({path: leaves[path] for path in adapted.heads}), inputs["task"])
        return inner(base, shared, TaskSlots(slot, heads=heads), own, key)

    return forward


def _pooled(job: Job, one_head: bool) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Inputs with the head of each example, labels, and the number of outputs of each head."""
    tasks = job.stream.tasks
    names = tasks[0].train.inputs
    inputs = {name: joined([task.train.inputs[name] for task in tasks]) for name in names}
    sizes = [len(task.train) for task in tasks]
    inputs["task"] = np.repeat(np.arange(len(tasks), dtype=np.int32) * (not one_head), sizes)
    labels = np.concatenate([task.train.labels for task in tasks])
    counts = [len(task.classes) for task in tasks]
    return inputs, labels, np.array([max(counts)] if one_head else counts, np.int32)


def _pipeline(job: Job, one_head: bool) -> Pipeline:
    inputs, labels, classes = _pooled(job, one_head)
    steps = job.config.steps * len(job.stream.tasks)
    made = pipeline_of(job, inputs, labels, classes=0, task=0, steps=steps)
    return made.map(lambda batch: {**batch, "classes": classes[batch["inputs"]["task"]]})


class Joint:
    """One job: the adapted model with a head per task, its compiled step, and how it answers."""

    def __init__(self, job: Job) -> None:
        """Adapts the model and compiles the step."""
        self.one_head, self.grows = job.stream.protocol != TASK, job.stream.protocol == CLASS
        self.job = job = with_one_head(job) if self.one_head else job
        config, params, devices = job.config, job.backbone.params, job.devices
        self.heads = 1 if self.one_head else len(job.stream.tasks)
        self.adapted = adapted = adapted_model(job, SeparateLoRA(config.rank, config.alpha))
        self.base = devices.base({"params": params}, adapted)
        key_init, key_train = jax.random.split(jax.random.key(job.seed))
        self.fresh = adapted.init(key_init, params, self.heads)
        stacked = flat(self.fresh["tasks"])
        slot = merged(read_slot(self.fresh["tasks"], 0), nested({path: stacked[path] for path in adapted.heads}))
        self.steps = config.steps * len(job.stream.tasks)
        optimizer = optimizer_of(job, adapted, self.steps, train_shared=False)
        self.start = init_state({}, slot, optimizer, key_train)
        self.pipeline = _pipeline(job, self.one_head)
        parts = _forward(job, adapted), loss_of(job.stream), optimizer, adapted, params
        train_step = devices.train_step(*parts, train_shared=False)
        samples = samples_of([self.pipeline])
        self.step = devices.compiled(train_step, self.start, self.base, samples, label=job.name)
        self.predictor = devices.predictor(devices.forward(adapted, job.backbone.blocks), adapted, params)

    def predict(self, slot: Tree) -> Predict:
        """How the one adapter answers with each task's head."""

        def answer(number: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            own = _with_heads(self.adapted, slot, jnp.int32(number % self.heads))
            return outputs_of(self.job, self.predictor, self.base, {}, own, inputs)

        return answer

    def accuracies(self, slot: Tree) -> list[float]:
        """Of every task's test set."""
        found, answer = [], self.predict(slot)
        for number, task in enumerate(self.job.stream.tasks):
            values = answer(number, task.test.inputs)
            whole = self.one_head or task.kind == "tokens"
            values = values if whole else values[:, : task.outputs]
            found.append(score_split(values, task.test, task.metric).accuracy)
        return found

    def learnt(self, store: ckpt.Checkpoint, began: float) -> ckpt.Checkpoint:
        """The checkpoint with what was learnt and measured; nothing is done where it has it already."""
        job = self.job
        job.progress.begin(method=job.name, task_index=0, task_count=1, task_name=ALL)
        if ALL in store.names:
            job.progress.skip(self.steps)
            return store
        prepared = time.perf_counter()
        untrained = self.accuracies(self.start.slot)
        store, state = train_task(job, store, self.step, self.start, self.base, self.pipeline, ALL)
        slot = jax.block_until_ready(state.slot)
        trained = time.perf_counter()
        row, tests = self.accuracies(slot), _tests(job, self.predict(slot))
        job.progress.scored(row)
        seconds = {
            "prepare": prepared - began,
            "train": trained - prepared,
            "evaluate": time.perf_counter() - trained,
        }
        info = {"row": row, "untrained": untrained, "seconds": seconds, "tests": tests}
        store = ckpt.save_task(store, ALL, slot, info)
        job.preemption.released()
        return store

    def counts(self) -> ParameterCounts:
        """Parameters, the adapter held once."""
        tasks, rank = len(self.job.stream.tasks), self.job.config.rank
        counts = self.adapted.counts(self.job.backbone.params, self.fresh, tasks, separate_rank=rank).held_once()
        if not self.one_head:
            return counts
        answers = OneHead(self.job, self.grows)
        return replace(counts, **answers.one_head_counts(counts.heads_per_task))


def run(job: Job) -> Outcome:
    """Trains one LoRA and all heads on the union of the tasks; only the last row of the matrix exists."""
    began = time.perf_counter()
    joint = Joint(job)
    store = joint.learnt(open_store(joint.job, joint.adapted), began)
    info, tasks = store.info(ALL), len(job.stream.tasks)
    matrix = np.full((tasks, tasks), np.nan)
    matrix[-1] = info["row"]
    state = StreamState(store, TaskBank({}, joint.fresh["tasks"]))
    return Outcome(
        accuracy=matrix,
        untrained=np.array(info["untrained"]),
        seconds=info["seconds"],
        params=joint.counts().as_dict(),
        bytes=stored_bytes(state, joint.adapted.heads, once=True),
        extra=info.get("tests", {}),
    )


def _tests(job: Job, predict: Predict) -> dict[str, Any]:
    """What is asked beside the tasks' own scores, of a language model."""
    if not of_tokens(job.stream):
        return {}
    values = [predict(number, task.test.inputs) for number, task in enumerate(job.stream.tasks)]
    return further_tests(job.stream.tasks, predict, values)[0]


METHODS = (Method("joint", run),)
