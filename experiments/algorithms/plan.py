"""A method as a plan: which leaves a task owns, what later tasks change of them, and what is added to the learning.

Most baselines are a `Plan` and an `Extension` that states only what differs from training one LoRA task after task. An
extension is told everything by its arguments and keeps nothing itself: what it remembers is its *memory*, a tree of
arrays whose shapes never change, saved with every task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.algorithms.job import Job
from experiments.data.pipeline import Pipeline
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.layers.effective_params import effective_params
from share_jax.linen.adapted_model import Adapted
from share_jax.parameterizations.base import Parameterization
from share_jax.train.step import Forward, Loss
from share_jax.trees import flat, nested
from share_jax.typing import PRNGKey, Tree

AdapterLifetime = Literal["nothing", "adapter", "sum"]
"""What later tasks change of the adapter that answers for a task. "nothing": each task answers with its own. "adapter":
one adapter goes on training, and answers as the last task left it. "sum": each task trains a fresh one on top of the
frozen ones before it, and all of them together answer."""

Heads = Literal["own", "one", "all"]
"""Who trains which head. "own": each task its own, which nobody changes after it. "one": one head, which every task
goes on training. "all": each task has a head and every task may train all of them, as with replay of earlier examples;
the extension's `forward` then says which head answers what."""

MEMORY = "memory"
"""Name under which an extension's arrays stand beside "params" in what the steps read, and beside what is shared in
checkpoints."""


@dataclass(frozen=True)
class MethodContext:
    """What an extension may look at.

    Attributes:
        job: the job.
        plan: the plan that the extension is part of.
        adapted: the model with adapters and heads.
        heads: paths within a slot of the classifier's leaves; other leaves that a task owns whole are not among them.
        forward: the model's plain answer for a slot with one head.
    """

    job: Job
    plan: "Plan"
    adapted: Adapted
    heads: tuple[str, ...]
    forward: Forward

    @property
    def tasks(self) -> int:
        """Tasks in the stream, T."""
        return len(self.job.stream.tasks)

    @property
    def head_sets(self) -> int:
        """Heads within one slot."""
        return self.tasks if self.plan.heads == "all" else 1

    def head_of(self, index: int) -> int:
        """Which of the slot's heads is that of a task."""
        return index if self.plan.heads == "all" else 0

    def changes(self, path: str) -> bool:
        """Whether later tasks change what this leaf is to an earlier task."""
        return self.plan.heads != "own" if path in self.heads else self.plan.carry != "nothing"

    def changing(self, slot: Tree) -> dict[str, Any]:
        """The leaves of a slot that later tasks change."""
        return nested({path: leaf for path, leaf in flat(slot).items() if self.changes(path)})

    def params(self, bank: TaskBank, index: int) -> Tree:
        """The base model's parameters, with the updates of the tasks before one folded in where `carry` is "sum"."""
        params = self.job.backbone.params
        for earlier in range(index if self.plan.carry == "sum" else 0):
            slot = read_slot(bank.tasks, earlier)
            params = effective_params(self.plan.method, self.adapted.targets, params, bank.shared, slot)
        return params

    def rng(self, *places: int) -> np.random.Generator:
        """Random numbers that depend on the job's seed and on `places` alone."""
        return np.random.default_rng([self.job.seed, *places])


class Extension:
    """What a method adds to learning a task after task; this one adds nothing.

    `bank` holds the tasks learnt so far, `memory` what the extension remembers of them, `index` is the task at hand.
    """

    keeps_every: bool = False
    """Whether the adapters of all tasks are needed to answer, though `carry` is "adapter"."""

    def leaves(self, scene: MethodContext, key: PRNGKey) -> dict[str, Any]:
        """Further leaves of a fresh slot by path, beside those of the parameterisation and the heads."""
        return {}

    def memory(self, scene: MethodContext, bank: TaskBank) -> dict[str, Any]:
        """The memory before the first task, while all of the bank is fresh: a nested dict of arrays."""
        return {}

    def start(
        self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int, slot: dict[str, Any]
    ) -> dict[str, Any]:
        """The slot in which a task's training begins; `slot` holds fresh leaves and those that go on training."""
        return slot

    def view(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """What forward passes read as `base[MEMORY]` while the task is learnt, and when it and earlier ones answer."""
        return {}

    def forward(self, scene: MethodContext) -> Forward:
        """How the model answers in training; may return more than logits, for `loss`."""
        return scene.forward

    def answer(self, scene: MethodContext) -> Forward:
        """How the model answers for a task's slot, with one head: logits (batch, classes)."""
        return scene.forward

    def loss(self, inner: Loss) -> Loss:
        """The loss of what `forward` returns."""
        return inner

    def batches(self, scene: MethodContext, pipeline: Pipeline, memory: Tree, index: int) -> Pipeline:
        """The task's batches."""
        return pipeline

    def after(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The memory after the task; the bank now holds it."""
        return dict(memory)

    def findings(self, scene: MethodContext, bank: TaskBank, memory: Tree) -> Mapping[str, Any]:
        """What is worth telling of the end of the stream, JSON."""
        return {}


@dataclass(frozen=True)
class Plan:
    """A method as a choice of slots.

    Attributes:
        method: the parameterisation of each kernel's update.
        carry: what later tasks change of the adapter that answers for a task: that is where forgetting comes from.
        heads: the same of the head.
        adapts: whether any kernel is adapted; otherwise only the heads, and what `owned` and `extension` add, train.
        owned: regular expressions for further parameters of which each task has a copy, which counts as its adapter.
        frozen: names of leaves of the slot that do not train.
        own_outputs: whether the loss of a class-incremental task is over its own outputs, and not over all so far.
        extension: what else the method does.
    """

    method: Parameterization
    carry: AdapterLifetime = "nothing"
    heads: Heads = "own"
    adapts: bool = True
    owned: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    own_outputs: bool = False
    extension: Extension = Extension()  # noqa: RUF009  it has no state
