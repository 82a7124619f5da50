"""EWC: one LoRA for all tasks, each weight held to where earlier tasks left it, by how much it mattered to them.

loss = CE + lambda / 2 * sum_i sum_k F_i[k] (theta[k] - theta_i[k])^2 over earlier tasks i. F_i is the diagonal of the
Fisher information at theta_i: the mean over training examples of the squared gradient of log p(y | x), with y drawn
from the model. Where a task asks for a number, p(y | x) is a Gaussian of variance 1 around the model's output f(x): the
mean over y is then the squared gradient of f, with nothing to draw. Of a text's completion every token is drawn behind
the text's own tokens before it, and p(y | x) is their product. One quadratic per task, as in the paper; their sum
is kept as two numbers per weight, sum F_i and sum F_i theta_i, which is the same function up to a constant. What is
held is what later tasks would change: the LoRA, and the head where all tasks have one.

Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (arXiv 1612.00796), equation 3
and the end of section 2. Defaults: lambda = 1000 (`--ewc-strength`), which the
paper chooses per experiment, as is done here (`TUNED`), and 256 examples per task (`--ewc-examples`), by
measurement; the paper's own number of examples is not known here.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.algorithms.batches import classes_of
from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import MEMORY, Extension, MethodContext, Plan
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.batches import pick
from share_jax.train.losses import LossSums, mask_classes
from share_jax.train.step import Forward, Loss
from share_jax.trees import flat, merged
from share_jax.typing import Array, PRNGKey, Tree

_EXAMPLES, _LABELS = 11, 12  # places of random numbers


@dataclass(frozen=True)
class EwcNumbers(MethodNumbers):
    """What only EWC reads."""

    ewc_strength: float = 1000.0
    """ewc_lora: weight of the penalty, lambda."""
    ewc_examples: int = 256
    """ewc_lora: training examples per task from which the Fisher information is estimated; all if there are fewer."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(1, "ewc_examples")
        self.at_least(0, "ewc_strength")


def penalty(fisher: Tree, weighted: Tree, now: Tree) -> Array:
    """Half of sum_i F_i (theta - theta_i)^2, without the part that does not depend on theta.

    Args:
        fisher: sum of F_i for each weight.
        weighted: sum of F_i theta_i for each weight.
        now: theta.
    """

    def leaf(f: Array, w: Array, theta: Array) -> Array:
        anchor = w / jnp.where(f > 0, f, 1)
        return jnp.sum(f * jnp.square(theta - anchor))

    parts = jax.tree.leaves(jax.tree.map(leaf, fisher, weighted, now))
    return 0.5 * jnp.sum(jnp.stack(parts))


@partial(jax.jit, static_argnames=("forward", "number"))
def fisher_sum(
    forward: Forward, params: Tree, held: Tree, slot: Tree, batch: Any, key: PRNGKey, *, number: bool = False
) -> Tree:
    """Sum over a batch of the squared gradient of each example's log p(y | x), y drawn from the model's own answer.

    For a number, E_y[(y - f)^2 (df)^2] = (df)^2 with the gradient df of the first output f, and nothing is drawn.
    Inputs with "targets" are of tokens: one is drawn at each place that has a target.

    Args:
        forward: the model.
        params: the base model's parameters.
        held: the leaves of the slot for which it is wanted.
        slot: the slot.
        batch: with "inputs", "weights" and "classes".
        key: draws the labels.
        number: whether the task asks for a number; otherwise for one of its classes, which cannot be 0.
    """

    def surprise(held: Tree, inputs: Any, key: PRNGKey) -> Array:
        one = {name: leaf[None] for name, leaf in inputs.items() if name != "targets"}
        outputs = forward({"params": params}, {}, merged(slot, held), one, None)
        if "targets" in inputs:
            return _surprise_of_tokens(outputs[0], inputs["targets"], key)
        if number:
            return outputs[0, 0]
        logits = mask_classes(outputs, batch["classes"])[0]
        return -jax.nn.log_softmax(logits)[jax.random.categorical(key, jax.lax.stop_gradient(logits))]

    keys = jax.random.split(key, batch["weights"].shape[0])
    grads = jax.vmap(jax.grad(surprise), in_axes=(None, 0, 0))(held, batch["inputs"], keys)
    return jax.tree.map(lambda leaf: jnp.tensordot(batch["weights"], jnp.square(leaf), axes=1), grads)


def _surprise_of_tokens(logits: Array, targets: Array, key: PRNGKey) -> Array:
    """-log p of one token drawn from each row of logits (K, vocabulary) that has a target."""
    drawn = jax.random.categorical(key, jax.lax.stop_gradient(logits))
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[:, None], axis=1)[:, 0]
    return jnp.sum(jnp.where(targets >= 0, nats, 0))


@dataclass(frozen=True)
class EWC(Extension):
    """The quadratic penalty.

    Attributes:
        strength: lambda.
        examples: training examples per task from which F is estimated.
    """

    strength: float
    examples: int

    def memory(self, scene: MethodContext, bank: TaskBank) -> dict[str, Any]:
        """Sums of F_i and of F_i theta_i, zero before the first task."""
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), scene.changing(read_slot(bank.tasks, 0)))
        return {"fisher": zeros, "weighted": zeros}

    def view(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """The memory."""
        return dict(memory)

    def forward(self, scene: MethodContext) -> Forward:
        """The logits and the penalty."""

        def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
            known = base[MEMORY]
            pulled = penalty(known["fisher"], known["weighted"], scene.changing(slot))
            return {"logits": scene.forward(base, shared, slot, inputs, key), "penalty": pulled}

        return run

    def loss(self, inner: Loss) -> Loss:
        """The inner loss and the penalty, once per example, since the sum is divided by their number."""

        def penalised(out: Any, batch: Any) -> LossSums:
            sums = inner(out["logits"], batch)
            return sums._replace(total=sums.total + self.strength * out["penalty"] * sums.weight)

        return penalised

    def after(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """Adds the task's F and F theta."""
        slot, fisher = read_slot(bank.tasks, index), self._fisher(scene, bank, index)
        held = scene.changing(slot)
        return {
            "fisher": jax.tree.map(lambda old, f: np.asarray(old + f), memory["fisher"], fisher),
            "weighted": jax.tree.map(lambda old, f, x: np.asarray(old + f * x), memory["weighted"], fisher, held),
        }

    def _fisher(self, scene: MethodContext, bank: TaskBank, index: int) -> Tree:
        job, split = scene.job, scene.job.stream.tasks[index].train
        slot = read_slot(bank.tasks, index)
        held = scene.changing(slot)
        chosen = scene.rng(index, 0, _EXAMPLES).permutation(len(split))[: self.examples]
        key = jax.random.key(int(scene.rng(index, 0, _LABELS).integers(2**31)))
        size, total = job.config.batch_size, jax.tree.map(jnp.zeros_like, held)
        classes, params = classes_of(job, index), job.backbone.params
        number = job.stream.tasks[index].kind == "regression"
        for turn, start in enumerate(range(0, len(chosen), size)):
            part = chosen[start : start + size]
            batch, drawn = pick(split.inputs, split.labels, part, size, classes), jax.random.fold_in(key, turn)
            sums = fisher_sum(scene.forward, params, held, slot, batch, drawn, number=number)
            total = jax.tree.map(jnp.add, total, sums)
            job.preemption.point()
        return jax.tree.map(lambda leaf: leaf / len(chosen), total)

    def findings(self, scene: MethodContext, bank: TaskBank, memory: Tree) -> dict[str, Any]:
        """How large the information is."""
        return {"fisher_trace": float(sum(np.sum(leaf) for leaf in flat(memory["fisher"]).values()))}


def run(job: Job) -> Outcome:
    """Goes on training one LoRA under the penalty."""
    own = job.config.of(EwcNumbers)
    method = SeparateLoRA(job.config.rank, job.config.alpha)
    return learn(job, Plan(method, "adapter", extension=EWC(own.ewc_strength, own.ewc_examples)))


TUNED = {
    "split_mnist5": {"ewc_strength": 1e5},
    "split_fashion5": {"ewc_strength": 1e5},  # nothing was tried on it
    "digits5": {"ewc_strength": 1e4},
    "clinc150-class": {"ewc_strength": 1e5},
    "rotated_mnist10": {"ewc_strength": 1.0},
}
METHODS = (Method("ewc_lora", run, (EwcNumbers,), tuned=TUNED),)
