"""Replay: a buffer of earlier examples of a stated size, filled by reservoir sampling, from which every update draws.

Each update has the task's own batch, the same as every method's, and on top of it examples drawn from the buffer, so
a replaying method sees as much of the new task as the others and computes more. Every example of a task is offered to
the buffer once, when the task is learnt: then each example of all tasks so far is in it with equal probability. What is
drawn depends on the seed, the task and the step alone. A replayed example has the loss of its own task: cross entropy,
or squared error where that asks for a number.

Source: Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning" (arXiv 1902.10486), algorithm 1 with
the reservoir of appendix A; Vitter 1985 for the reservoir.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.algorithms.batches import classes_of, labels_of
from experiments.algorithms.heads import ManyHeads, of_head, one_head
from experiments.algorithms.objective import one_type
from experiments.algorithms.plan import MethodContext
from experiments.algorithms.scoring import predictions
from experiments.config.numbers import MethodNumbers, out_of_range
from experiments.data.pipeline import Batch, Pipeline
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.train.losses import LossSums
from share_jax.train.step import Forward, Loss, make_predict
from share_jax.typing import Tree

_DRAWN, _KEPT = 21, 22  # places of random numbers

NO_TOKEN = -1
"""Label of a place with no token to learn."""


@dataclass(frozen=True)
class ReplayNumbers(MethodNumbers):
    """What every method that replays reads."""

    buffer_size: int = 200
    """er_lora, der_lora: examples that the replay buffer holds for all tasks together."""
    replay_batch: int | None = None
    """er_lora, der_lora: examples from the buffer in each update, on top of the task's own; as many if None."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(1, "buffer_size", *(() if self.replay_batch is None else ("replay_batch",)))

    def check_batches(self, parts: int) -> None:
        """Refuses a replayed batch that cannot be cut into the parts."""
        if self.replay_batch is not None and self.replay_batch % parts:
            expected = f"a multiple of {parts}, the parts of each batch"
            raise out_of_range("replay_batch", self.replay_batch, expected)


def reservoir(size: int, seen: int, offered: int, rng: np.random.Generator) -> np.ndarray:
    """Where a buffer puts each of `offered` examples, in order: a place below `size`, or -1 for not at all.

    Example number n (from 0, over all offers) goes to place n while there is room; after that to a place drawn from
    0 to n, if that is in the buffer. A later example may take the place of one of the same offer.

    Args:
        size: of the buffer.
        seen: examples that it was offered before.
        offered: examples that it is offered now.
        rng: random numbers.

    Returns:
        (offered,) int64
    """
    numbers = np.arange(seen, seen + offered)
    drawn = rng.integers(0, numbers + 1)
    return np.where(numbers < size, numbers, np.where(drawn < size, drawn, -1))


def kept(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is in the buffer after an offer: places that have changed, and which of the offered is at each, the last.

    >>> kept(np.array([0, 1, -1, 0]))
    (array([0, 1]), array([3, 1]))
    """
    last = {int(place): number for number, place in enumerate(places) if place >= 0}
    where = np.array(sorted(last), np.int64)
    return where, np.array([last[place] for place in where], np.int64)


def draw(filled: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of the examples of one update: without repetition where the buffer holds enough."""
    return rng.choice(filled, count, replace=filled < count)


def with_replay(batch: Batch, buffer: Mapping[str, Any], rows: np.ndarray, head: int) -> Batch:
    """A batch with examples of the buffer behind it.

    Args:
        batch: of the task, B examples.
        buffer: as of `Replay.memory`; texts of a batch that is cut to a shorter length are padded to that of these.
        rows: (R,) places in the buffer; those of an empty buffer get no weight.
        head: of the task.

    Returns:
        Per example: "inputs", "labels", "classes", "head"; "weights", 0 for what is replayed; "replayed", which adds up
        to as much over the replayed examples as "weights" over the others; and "stored" logits if the buffer has them.
    """
    own, more = len(batch["labels"]), len(rows)
    filled = int(buffer["seen"]) > 0
    share = np.float32(batch["weights"].sum() / more if filled else 0)

    def joined(new: Any, old: np.ndarray) -> np.ndarray:
        same = np.asarray(new).astype(old.dtype, casting="same_kind")  # never a number to a class
        same = _widened(same, old, NO_TOKEN) if same.ndim > 1 else same
        return np.concatenate([np.broadcast_to(same, (own, *old.shape[1:])), old[rows]])

    inputs = {}
    for name, array in batch["inputs"].items():
        old, filler = buffer["inputs"][name], NO_TOKEN if name == "targets" else 0
        inputs[name] = np.concatenate([_widened(array, old, filler), old[rows]])
    stored = {"stored": joined(0, buffer["logits"])} if "logits" in buffer else {}
    return {
        "inputs": inputs,
        "labels": joined(batch["labels"], buffer["labels"]),
        "classes": joined(batch["classes"], buffer["classes"]),
        "head": joined(head, buffer["head"]),
        "weights": np.concatenate([batch["weights"], np.zeros(more, np.float32)]),
        "replayed": np.concatenate([np.zeros(own, np.float32), np.full(more, share)]),
        **stored,
    }


def _widened(array: np.ndarray, like: np.ndarray, filler: int) -> np.ndarray:
    """Rows of another array's shape, filled up behind their ends."""
    short = [(0, 0)] + [(0, full - now) for full, now in zip(like.shape[1:], array.shape[1:], strict=True)]
    return np.pad(array, short, constant_values=filler)


def logit_distance(
    logits: Float[Array, "batch c"], stored: Float[Array, "batch c"], classes: Array
) -> Float[Array, " batch"]:
    """Mean squared distance of logits over the classes that count, for each example; for 0 classes over one output."""
    outputs = jnp.maximum(classes, 1)
    known = jnp.arange(logits.shape[-1])[None] < outputs[:, None]
    return jnp.sum(jnp.where(known, jnp.square(logits - stored), 0), axis=-1) / outputs


@dataclass(frozen=True)
class Replay(ManyHeads):
    """Loss of the task's batch + beta * loss of replayed examples + alpha * distance to their stored logits.

    Attributes:
        size: examples in the buffer.
        count: examples drawn for each update, R.
        beta: weight of the replayed examples' loss.
        alpha: weight of the distance; without it no logits are stored.
    """

    size: int
    count: int
    beta: float = 1.0
    alpha: float = 0.0

    def memory(self, scene: MethodContext, bank: TaskBank) -> dict[str, Any]:
        """The empty buffer."""
        split = scene.job.stream.tasks[0].train
        stored = {"logits": np.zeros((self.size, _outputs(scene, bank)), np.float32)} if self.alpha else {}
        labels = np.full((self.size, *split.labels.shape[1:]), 0 if split.labels.ndim == 1 else NO_TOKEN, np.int32)
        return {
            "inputs": {n: np.zeros((self.size, *a.shape[1:]), a.dtype) for n, a in split.inputs.items()},
            "labels": one_type(scene.job.stream, labels),
            "classes": np.ones(self.size, np.int32),
            "head": np.zeros(self.size, np.int32),
            "seen": np.int32(0),
            **stored,
        }

    def batches(self, scene: MethodContext, pipeline: Pipeline, memory: Tree, index: int) -> Pipeline:
        """Batches with replayed examples behind the task's own."""
        filled = min(int(memory["seen"]), self.size)
        if scene.plan.heads == "one":  # earlier examples compete with the outputs that came after them
            memory = {**memory, "classes": np.maximum(memory["classes"], classes_of(scene.job, index))}

        def replaying(step: int, batch: Batch) -> Batch:
            rng = scene.rng(index, step, _DRAWN)
            rows = draw(filled, self.count, rng) if filled else np.zeros(self.count, np.int64)
            return with_replay(batch, memory, rows, scene.head_of(index))

        return pipeline.map_numbered(replaying)

    def loss(self, inner: Loss) -> Loss:
        """The terms of the class's first line."""

        def replayed(out: Any, batch: Any) -> LossSums:
            logits = of_head(out, batch["head"])
            sums = inner(logits, batch)
            total = sums.total + self.beta * inner(logits, {**batch, "weights": batch["replayed"]}).total
            if self.alpha:
                apart = logit_distance(logits, batch["stored"], batch["classes"])
                total = total + self.alpha * jnp.sum(batch["replayed"] * apart)
            return sums._replace(total=total)

        return replayed

    def after(self, scene: MethodContext, bank: TaskBank, memory: Tree, index: int) -> dict[str, Any]:
        """Offers every example of the task to the buffer, with the logits of the model as the task leaves it."""
        job, split = scene.job, scene.job.stream.tasks[index].train
        seen = int(memory["seen"])
        where, which = kept(reservoir(self.size, seen, len(split), scene.rng(index, 0, _KEPT)))
        new: dict[str, Any] = {"labels": labels_of(job, index)[which]}
        new["classes"], new["head"] = classes_of(job, index), scene.head_of(index)
        if self.alpha:
            slot = one_head(scene, read_slot(bank.tasks, index), scene.head_of(index))
            chosen = {name: array[which] for name, array in split.inputs.items()}
            predictor, base = _predictor(scene.forward), {"params": job.backbone.params}
            size, point = job.config.eval_batch_size, job.preemption.point
            new["logits"] = predictions(predictor, base, bank.shared, slot, chosen, size, point)
        inputs = {name: _put(memory["inputs"][name], where, array[which]) for name, array in split.inputs.items()}
        rest = {name: _put(memory[name], where, value) for name, value in new.items()}
        return {"inputs": inputs, "seen": np.int32(seen + len(split)), **rest}

    def findings(self, scene: MethodContext, bank: TaskBank, memory: Tree) -> dict[str, Any]:
        """What the buffer holds."""
        return {"buffer_size": self.size, "buffer_filled": min(int(memory["seen"]), self.size)}


class TokenReplay(Replay):
    """Replay of texts that are completed: all tasks have the model's own output over the vocabulary, and no heads."""

    def forward(self, scene: MethodContext) -> Forward:
        """The model's plain answer."""
        return scene.forward

    def loss(self, inner: Loss) -> Loss:
        """Loss of the task's batch + beta * loss of the replayed texts."""

        def replayed(out: Any, batch: Any) -> LossSums:
            sums = inner(out, batch)
            again = inner(out, {**batch, "weights": batch["replayed"]})
            return sums._replace(total=sums.total + self.beta * again.total)

        return replayed


def _outputs(scene: MethodContext, bank: TaskBank) -> int:
    """How many outputs a head has."""
    split, base = scene.job.stream.tasks[0].train, {"params": scene.job.backbone.params}
    slot = one_head(scene, read_slot(bank.tasks, 0), 0)
    example = {name: array[:1] for name, array in split.inputs.items()}
    return jax.eval_shape(lambda: scene.forward(base, bank.shared, slot, example, None)).shape[-1]


@lru_cache(maxsize=4)
def _predictor(forward: Forward) -> Any:
    return make_predict(forward)


def _put(array: np.ndarray, where: np.ndarray, value: Any) -> np.ndarray:
    changed = np.array(array)
    changed[where] = value
    return changed
