"""O-LoRA: a new LoRA for each task on top of the frozen ones before it, its A kept orthogonal to all of theirs.

loss = CE + lambda_1 * sum over earlier tasks i and kernels of |A_i^T A_t|_F^2. All LoRAs together answer for every
task, so what a later one adds on an earlier task's inputs is what is forgotten.

Source: Wang et al. 2023, "Orthogonal Subspace Learning for Language Model Continual Learning" (arXiv 2310.14152),
equations 7 and 8. Defaults: lambda_1 = 10 (`--olora-strength`; some streams have their own, `TUNED`), and
not the paper's 0.5: it depends on the size of A's entries. Rank, alpha and adapted kernels of the run. Where one head
answers for all classes, its loss is over all outputs so far, as the paper has it: with no old examples the head itself
forgets them, which `inflora`, `sd_lora` and `l2p` avoid by a loss over the task's own outputs.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import MEMORY, Extension, MethodContext, Plan
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from share_jax.bank.bank import TaskBank
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.losses import LossSums
from share_jax.train.step import Forward, Loss
from share_jax.trees import flat, nested
from share_jax.typing import Array, PRNGKey, Tree


@dataclass(frozen=True)
class OLoraNumbers(MethodNumbers):
    """What only O-LoRA reads."""

    olora_strength: float = 10.0
    """o_lora: weight of the orthogonality penalty, lambda_1."""

    def __post_init__(self) -> None:
        """Checks the range."""
        self.at_least(0, "olora_strength")


def overlap(earlier: Array, now: Array) -> Array:
    """sum_i |A_i^T A_t|_F^2.

    Args:
        earlier: (T, d_in, r), zeros for tasks that are not learnt.
        now: (d_in, r).
    """
    return jnp.sum(jnp.square(jnp.einsum("tdr,ds->trs", earlier, now)))


def down_matrices(tree: Tree) -> dict[str, Any]:
    """The leaves `lora_a` by path."""
    return {path: leaf for path, leaf in flat(tree).items() if path.rpartition("/")[2] == "lora_a"}


@dataclass(frozen=True)
class OLoRA(Extension):
    """The orthogonality penalty.

    Attributes:
        strength: lambda_1.
    """

    strength: float

    def view(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The A of every earlier task."""
        earlier = np.arange(scene.tasks)[:, None, None] < index
        return nested({path: jnp.where(earlier, a, 0) for path, a in down_matrices(bank.tasks).items()})

    def forward(self, scene: MethodContext) -> Forward:
        """The logits and the penalty."""

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            known = flat(base[MEMORY])
            parts = [overlap(known[path], a) for path, a in down_matrices(slot).items()]
            return {"logits": scene.forward(base, shared, slot, inputs, key), "overlap": sum(parts, jnp.float32(0))}

        return run

    def loss(self, inner: Loss) -> Loss:
        """The inner loss and the penalty, once per example, since the sum is divided by their number."""

        def penalised(out: Any, batch: Any) -> LossSums:
            sums = inner(out["logits"], batch)
            return sums._replace(total=sums.total + self.strength * out["overlap"] * sums.weight)

        return penalised

    def findings(self, scene: MethodContext, bank: TaskBank, memory: Tree) -> dict[str, Any]:
        """The largest cosine between a column of one learnt task's A and one of another's."""
        worst = 0.0
        for a in down_matrices(bank.tasks).values():
            learnt = np.asarray(a[: len(bank.names)])
            unit = learnt / np.linalg.norm(learnt, axis=1, keepdims=True)
            cosines = np.abs(np.einsum("idr,jds->ijrs", unit, unit))
            apart = ~np.eye(len(unit), dtype=bool)
            worst = max(worst, float(cosines[apart].max(initial=0)))
        return {"largest_cosine": worst}


def run(job: Job) -> Outcome:
    """Trains a LoRA per task, orthogonal to those before it, and answers with all of them."""
    method = SeparateLoRA(job.config.rank, job.config.alpha)
    return learn(job, Plan(method, "sum", extension=OLoRA(job.config.of(OLoraNumbers).olora_strength)))


TUNED = {
    "split_mnist5": {"olora_strength": 1e3},
    "split_mnist5-class": {"olora_strength": 100.0},
    "split_fashion5": {"olora_strength": 1e3},  # nothing was tried on it
    "digits5": {"olora_strength": 1e3},
    "clinc150-class": {"olora_strength": 1e3},
}
METHODS = (Method("o_lora", run, (OLoraNumbers,), tuned=TUNED),)
