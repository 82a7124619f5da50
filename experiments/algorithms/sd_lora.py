"""SD-LoRA: the directions of earlier LoRAs are kept, and how far the weights go along each is learnt anew.

While task t is learnt, the update is sum_{i<t} m_i A_i B_i / |A_i B_i|_F + (alpha / r) A_t B_t. The earlier directions
are frozen and of unit length; their magnitudes m, one per kernel and task, train along with A_t and B_t. When t is
learnt its own update is split in the same way, so the function is the same before and after. The last state answers
for every task. The paper writes m_t for the task at hand too; here the length of A_t B_t is that number, since a
product that starts at zero has no direction.

Class-incremental, the loss of a task is over its own outputs, and answers are over all, as public code of it has it.

Source: Wu et al. 2025, "SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class Incremental Learning"
(arXiv 2501.13198), equations 4 and 5. Defaults: rank, alpha and adapted kernels of the run; no rank reduction (its -RR
and -KD forms).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import MEMORY, Extension, MethodContext, Plan
from experiments.config.methods import Method
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.ops.products import up_product
from share_jax.parameterizations.base import LeafSpec
from share_jax.train.step import Forward
from share_jax.trees import at, flat, merged, nested
from share_jax.typing import Leaves, PRNGKey, Tree


def length(a: Float[Array, "d_in r"], b: Float[Array, "r d_out"]) -> Float[Array, ""]:
    """|A B|_F, without the product."""
    return jnp.sqrt(jnp.maximum(jnp.sum((a.T @ a) * (b @ b.T)), 0))


@dataclass(frozen=True)
class DecoupledLoRA:
    """A LoRA beside earlier ones, each a frozen direction with a magnitude that trains.

    The slot has `lora_a` (d_in, r), `lora_b` (r, d_out) and `magnitudes` (T,). The directions are no parameters of
    the task: `earlier_a` (d_in, T r) and `earlier_b` (T r, d_out) are passed as shared leaves.

    Attributes:
        rank: r.
        alpha: numerator of the new pair's scale alpha / r.
        tasks: T.
        init_std: standard deviation of A's entries.
    """

    rank: int
    alpha: float
    tasks: int
    init_std: float = 0.02

    @property
    def name(self) -> str:
        return "decoupled"

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def pair(self) -> None:
        return None

    def leaves(self, d_in: int, d_out: int) -> dict[str, LeafSpec]:
        return {
            "lora_a": LeafSpec((d_in, self.rank), ("d_in", None)),
            "lora_b": LeafSpec((self.rank, d_out), (None, "d_out")),
            "magnitudes": LeafSpec((self.tasks,), (None,)),
        }

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {}

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {
            "lora_a": self.init_std * jax.random.normal(key, (d_in, self.rank), jnp.float32),
            "lora_b": jnp.zeros((self.rank, d_out), jnp.float32),
            "magnitudes": jnp.zeros(self.tasks, jnp.float32),
        }

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "d_in q"]:
        return jnp.concatenate([shared["earlier_a"], slot["lora_a"]], axis=1)

    def up(self, shared: Leaves, slot: Leaves, h: Float[Array, "batch n q"]) -> Float[Array, "batch n d_out"]:
        return up_product(h, self._up(shared, slot))

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[Array, "d_in q"], Float[Array, "q d_out"]]:
        return self.down(shared, slot), self._up(shared, slot)

    def _up(self, shared: Leaves, slot: Leaves) -> Float[Array, "q d_out"]:
        magnitudes = jnp.repeat(slot["magnitudes"], self.rank)[:, None]
        return jnp.concatenate([magnitudes * shared["earlier_b"], self.scale * slot["lora_b"]])


@dataclass(frozen=True)
class SDLoRA(Extension):
    """The frozen directions."""

    keeps_every = True

    def view(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The directions of the tasks before, as the parameterisation's shared leaves."""
        made = {}
        for target in scene.adapted.targets:
            stack = at(bank.tasks, target.leaves_path)
            a, b = [], []
            for task in range(scene.tasks):
                own_a, own_b = stack["lora_a"][task], stack["lora_b"][task]
                size = length(own_a, own_b)
                there = (task < index) & (size > 0)
                a.append(jnp.where(there, own_a, 0))
                b.append(jnp.where(there, own_b / jnp.where(size > 0, size, 1), 0))
            path = "/".join(target.leaves_path)
            made |= {f"{path}/earlier_a": jnp.concatenate(a, axis=1), f"{path}/earlier_b": jnp.concatenate(b)}
        return nested(made)

    def start(
        self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int, slot: dict[str, Any]
    ) -> dict[str, Any]:
        """A fresh pair; the magnitudes go on, that of the last task being the length of its update."""
        fresh, new = read_slot(bank.tasks, index), {}
        method: Any = scene.plan.method
        for target in scene.adapted.targets:
            last, own, path = at(slot, target.leaves_path), at(fresh, target.leaves_path), "/".join(target.leaves_path)
            new |= {f"{path}/lora_a": own["lora_a"], f"{path}/lora_b": own["lora_b"]}
            if index:
                reached = method.scale * length(last["lora_a"], last["lora_b"])
                new[f"{path}/magnitudes"] = last["magnitudes"].at[index - 1].set(reached)
        return merged(slot, nested(new))

    def forward(self, scene: MethodContext) -> Forward:
        """The model with the directions beside the task's own pair."""

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            return scene.forward(base, merged(shared, base[MEMORY]), slot, inputs, key)

        return run

    def answer(self, scene: MethodContext) -> Forward:
        """The same."""
        return self.forward(scene)

    def findings(self, scene: MethodContext, bank: TaskBank, memory: Tree) -> dict[str, Any]:
        """For each kernel, the magnitudes of the directions before the last task as that left them."""
        leaves = flat(read_slot(bank.tasks, len(bank.names) - 1))
        found = {path.rpartition("/")[0]: x for path, x in leaves.items() if path.endswith("/magnitudes")}
        return {"magnitudes": {path: [float(m) for m in x[: len(bank.names) - 1]] for path, x in found.items()}}


def run(job: Job) -> Outcome:
    """Trains a LoRA per task and the magnitudes of all before it."""
    method = DecoupledLoRA(job.config.rank, job.config.alpha, len(job.stream.tasks))
    return learn(job, Plan(method, "adapter", own_outputs=True, extension=SDLoRA()))


METHODS = (Method("sd_lora", run),)
