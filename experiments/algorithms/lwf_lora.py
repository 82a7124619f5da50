"""LwF: one LoRA for all tasks, held to what it answered before the task through every earlier head.

On the new task's inputs, the answers of the earlier heads are distilled from the model as the task found it:
loss = CE(new head) + lambda_o * sum over earlier heads of KL(p' || q'), both distributions at temperature T.
The paper writes the cross entropy of the two, which differs from KL by a constant. As in the paper the earlier heads
train along; with one head its earlier classes are distilled, and where that grows the cross entropy is over the new
classes alone, as with a head per task. A head that answers with a number z is held by (z' - z)^2 / 2, which is that KL
for Gaussians of variance 1 around both; no temperature. A language model has one output for all tasks, its vocabulary:
there the answers at the places of the new task's tokens are distilled.

Source: Li and Hoiem 2016, "Learning without Forgetting" (arXiv 1606.09282), figure 3 and equations 2 and 3.
Defaults: T = 2 and lambda_o = 1 as in the paper, but for streams that have a better lambda_o of their own
(`TUNED`); no warm-up of the new head but the run's `head_first`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.algorithms.batches import classes_of
from experiments.algorithms.heads import ManyHeads, every_head, of_head
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.objective import asks_for_numbers, of_tokens
from experiments.algorithms.plan import MEMORY, Extension, MethodContext, Plan
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.losses import LossSums
from share_jax.train.step import Forward, Loss
from share_jax.typing import PRNGKey, Tree


@dataclass(frozen=True)
class LwfNumbers(MethodNumbers):
    """What only LwF reads."""

    lwf_strength: float = 1.0
    """lwf_lora: weight of the distillation, lambda_o."""
    lwf_temperature: float = 2.0
    """lwf_lora: temperature of both distributions."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(0, "lwf_strength")
        self.above_zero("lwf_temperature")


def distillation(
    teacher: Float[Array, "batch h c"],
    student: Float[Array, "batch h c"],
    classes: Int[Array, " h"],
    temperature: float,
) -> Float[Array, " batch"]:
    """KL of the student from the teacher at a temperature, summed over heads.

    Args:
        teacher: logits; no gradient goes there.
        student: logits.
        classes: how many classes of each head count; 0 leaves a head out.
        temperature: divides both.
    """
    known = jnp.arange(student.shape[-1])[None, None] < classes[None, :, None]

    def log_probabilities(logits: Array) -> Array:
        return jax.nn.log_softmax(jnp.where(known, logits / temperature, jnp.finfo(logits.dtype).min), axis=-1)

    before, now = log_probabilities(jax.lax.stop_gradient(teacher)), log_probabilities(student)
    return jnp.sum(jnp.where(known, jnp.exp(before) * (before - now), 0), axis=(1, 2))


def number_distance(
    teacher: Float[Array, "batch h c"], student: Float[Array, "batch h c"], numbers: Bool[Array, " h"]
) -> Float[Array, " batch"]:
    """Half the squared distance of the first outputs, summed over the heads that answer with a number.

    Args:
        teacher: outputs; no gradient goes there.
        student: outputs.
        numbers: which heads these are.
    """
    apart = student[..., 0] - jax.lax.stop_gradient(teacher)[..., 0]
    return 0.5 * jnp.sum(jnp.where(numbers[None], jnp.square(apart), 0), axis=1)


@dataclass(frozen=True)
class LwF(ManyHeads):
    """The distillation term.

    Attributes:
        strength: lambda_o.
        temperature: T.
    """

    strength: float
    temperature: float

    def view(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The teacher, which is the last task's slot, and what each head has learnt: so many classes, or a number."""
        classes, numbers = np.zeros(scene.head_sets, np.int32), np.zeros(scene.head_sets, bool)
        for earlier in range(index):
            count, head = classes_of(scene.job, earlier), scene.head_of(earlier)
            classes[head], numbers[head] = count, count == 0
        learnt = {"classes": classes, **({"numbers": numbers} if asks_for_numbers(scene.job.stream) else {})}
        return {"teacher": read_slot(bank.tasks, max(index - 1, 0)), **learnt}

    def forward(self, scene: MethodContext) -> Forward:
        """The outputs of every head, now and before the task, and which of them are to be held."""
        inner = every_head(scene)

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            known = base[MEMORY]
            teacher = inner(base, shared, known["teacher"], inputs, key)
            held = {name: known[name] for name in ("classes", "numbers") if name in known}
            return {"now": inner(base, shared, slot, inputs, key), "before": teacher, **held}

        return run

    def loss(self, inner: Loss) -> Loss:
        """The inner loss of the task's head, and the distillation of the earlier ones."""

        def distilled(out: Any, batch: Any) -> LossSums:
            sums = inner(of_head(out["now"], batch["head"]), batch)
            apart = distillation(out["before"], out["now"], out["classes"], self.temperature)
            if "numbers" in out:
                apart = apart + number_distance(out["before"], out["now"], out["numbers"])
            return sums._replace(total=sums.total + self.strength * jnp.sum(batch["weights"] * apart))

        return distilled


@dataclass(frozen=True)
class TokenLwF(Extension):
    """The distillation term of a language model.

    Attributes:
        strength: lambda_o.
        temperature: T.
    """

    strength: float
    temperature: float

    def view(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The teacher, which is the last task's slot, and 1 if there is one, else 0."""
        return {"teacher": read_slot(bank.tasks, max(index - 1, 0)), "known": np.float32(index > 0)}

    def forward(self, scene: MethodContext) -> Forward:
        """The logits at the places of the learnt tokens, now and before the task."""

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            known, own = base[MEMORY], {name: array for name, array in inputs.items() if name != "targets"}
            before = scene.forward(base, shared, known["teacher"], own, key)
            return {"now": scene.forward(base, shared, slot, own, key), "before": before, "known": known["known"]}

        return run

    def loss(self, inner: Loss) -> Loss:
        """The inner loss, and the distillation of every token that counts."""

        def distilled(out: Any, batch: Any) -> LossSums:
            sums = inner(out["now"], batch)
            words = out["now"].shape[-1]
            before, now = (out[name].reshape(-1, 1, words) for name in ("before", "now"))  # a place is an example
            apart = distillation(before, now, jnp.array([words]), self.temperature)
            counting = batch["weights"][:, None] * (batch["labels"] >= 0)
            pulled = jnp.sum(counting.reshape(-1) * apart)
            return sums._replace(total=sums.total + self.strength * out["known"] * pulled)

        return distilled


def run(job: Job) -> Outcome:
    """Goes on training one LoRA, with the answers of earlier heads distilled."""
    own = job.config.of(LwfNumbers)
    method = SeparateLoRA(job.config.rank, job.config.alpha)
    if of_tokens(job.stream):
        return learn(job, Plan(method, "adapter", extension=TokenLwF(own.lwf_strength, own.lwf_temperature)))
    extension = LwF(own.lwf_strength, own.lwf_temperature)
    return learn(job, Plan(method, "adapter", "all", own_outputs=True, extension=extension))


TUNED = {
    "split_mnist5": {"lwf_strength": 3.0},
    "split_fashion5": {"lwf_strength": 3.0},  # nothing was tried on it
    "digits5": {"lwf_strength": 3.0},
    "clinc150-class": {"lwf_strength": 10.0},
    "rotated_mnist10": {"lwf_strength": 10.0},
}
METHODS = (Method("lwf_lora", run, (LwfNumbers,), tuned=TUNED),)
