"""Many small tasks on one frozen encoder, each learnt as a LoRA alone, in about half a second of a CPU.

Only the last FFN-down kernel is adapted. Everything below it is frozen, so its input and the residual beside it are
computed once per text; what is left of the model, `Tail`, is an ordinary Linen module that `share_jax.adapt` adapts.
The head is one for all tasks, drawn at random and frozen: all that is known of a task is in its LoRA, and without it a
task is answered by chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.backbones.backbone import Backbone
from experiments.streams.base import TextTask
from share_jax.adapters.factors import Adapter, Factors
from share_jax.bank.bank import TaskBank
from share_jax.bank.slots import read_slot
from share_jax.linen.adapted_model import adapt
from share_jax.models.gelu import exact_gelu
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.learner import Learner
from share_jax.trees import flat, nested
from share_jax.typing import Tree

FEWEST_CLASSES, MOST_CLASSES = 2, 5
TARGET = "ffn_down/kernel"


@dataclass(frozen=True)
class Budget:
    """How each task is learnt.

    Attributes:
        rank: of its LoRA.
        alpha: the update's scale is alpha / rank.
        steps: updates.
        batch_size: examples per update.
        learning_rate: the peak of AdamW's, with cosine decay to zero.
    """

    rank: int = 4
    alpha: float = 8.0
    steps: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-2


class Tail(nn.Module):
    """The last layer's FFN-down, its normalisation, mean pooling over the unmasked tokens, and a head."""

    width: int
    classes: int
    epsilon: float

    @nn.compact
    def __call__(self, inner: jax.Array, residual: jax.Array, mask: jax.Array) -> jax.Array:
        """Logits (batch, classes) from (batch, n, inner), (batch, n, width) and (batch, n)."""
        down = nn.Dense(self.width, name="ffn_down")(inner)
        x = nn.LayerNorm(epsilon=self.epsilon, name="ffn_norm")(residual + down)
        weight = mask.astype(jnp.float32)[:, :, None]
        pooled = (x * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)
        return nn.Dense(self.classes, name="head")(pooled)


@dataclass(frozen=True, eq=False)
class SmallTask:
    """A task: its inputs for `Tail` and labels, to learn from and to be tested on."""

    name: str
    train: tuple[dict[str, np.ndarray], np.ndarray]
    test: tuple[dict[str, np.ndarray], np.ndarray]
    classes: int


@dataclass(frozen=True, eq=False)
class Learnt:
    """A task's own LoRA, and its accuracies with it and without it."""

    adapter: Adapter
    accuracy: float
    without: float


def tail_of(backbone: Backbone) -> tuple[Tail, dict[str, Any]]:
    """The tail of an encoder's classifier, and its parameters with a random head for `MOST_CLASSES`."""
    config, encoder = backbone.model.config, backbone.params["encoder"]  # pyright: ignore[reportAttributeAccessIssue]
    last = encoder[f"layer_{config.num_hidden_layers - 1}"]
    kernel = nn.initializers.orthogonal()(jax.random.key(0), (config.hidden_size, MOST_CLASSES))
    head = {"kernel": kernel, "bias": jnp.zeros(MOST_CLASSES)}
    tail = Tail(config.hidden_size, MOST_CLASSES, config.layer_norm_eps)
    return tail, {"ffn_down": last["ffn_down"], "ffn_norm": last["ffn_norm"], "head": head}


def features(backbone: Backbone, ids: np.ndarray, mask: np.ndarray, batch_size: int = 150) -> dict[str, np.ndarray]:
    """What `Tail` takes, of token ids and mask (N, n): inner (N, n, inner), residual (N, n, width) and mask."""
    parts = []
    for start in range(0, len(ids), batch_size):
        rows = [array[start : start + batch_size] for array in (ids, mask)]
        size = len(rows[0])
        padded = [np.concatenate([part, np.repeat(part[-1:], batch_size - size, axis=0)]) for part in rows]
        found = _last_layer(backbone.model, backbone.params, *padded)
        parts.append([np.asarray(each)[:size] for each in found])
    inner, residual = (np.concatenate(side) for side in zip(*parts, strict=True))
    return {"inner": inner, "residual": residual, "mask": mask}


@partial(jax.jit, static_argnames="model")
def _last_layer(model: Any, params: Tree, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    layer = f"layer_{model.config.num_hidden_layers - 1}"
    wanted = ((layer, "ffn_up"), (layer, "attention_norm"))
    _, kept = model.apply(
        {"params": params},
        input_ids=ids,
        attention_mask=mask,
        capture_intermediates=lambda module, _: module.path[-2:] in wanted,
        mutable=["intermediates"],
    )
    found = kept["intermediates"]["encoder"][layer]
    inner = exact_gelu(found["ffn_up"]["__call__"][0])
    return jnp.asarray(inner), found["attention_norm"]["__call__"][0]


def make_tasks(
    domains: Sequence[TextTask], backbone: Backbone, encode: Any, *, tasks: int, seed: int
) -> Iterator[SmallTask]:
    """Tasks of `FEWEST_CLASSES` to `MOST_CLASSES` classes of one domain each, drawn at random; classes recur."""
    train, test = (_by_class(domains, backbone, encode, part) for part in ("train", "test"))
    random = np.random.default_rng(seed)
    for index in range(tasks):
        domain = int(random.integers(len(domains)))
        size = int(random.integers(FEWEST_CLASSES, MOST_CLASSES + 1))
        first = sum(len(each.classes) for each in domains[:domain])
        chosen = first + random.choice(len(domains[domain].classes), size=size, replace=False)
        sides = [_joined([side[c] for c in chosen]) for side in (train, test)]
        yield SmallTask(f"task {index + 1:03d}", sides[0], sides[1], len(chosen))


def _by_class(domains: Sequence[TextTask], backbone: Backbone, encode: Any, part: str) -> list[dict[str, np.ndarray]]:
    out = []
    for domain in domains:
        texts, labels = getattr(domain, f"{part}_texts"), getattr(domain, f"{part}_labels")
        found = features(backbone, *encode(texts))
        out += [{key: x[labels == c] for key, x in found.items()} for c in range(len(domain.classes))]
    return out


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    labels = np.repeat(np.arange(len(parts)), [len(part["mask"]) for part in parts]).astype(np.int32)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, labels


class Study:
    """Learns tasks and answers for them, with compiled steps that all tasks share."""

    def __init__(self, backbone: Backbone, budget: Budget, example: Mapping[str, np.ndarray]) -> None:
        """Adapts the tail; `example` has inputs of any task."""
        tail, self.params = tail_of(backbone)
        self.budget = budget
        self.method = SeparateLoRA(budget.rank, budget.alpha)
        first: dict[str, Any] = {key: x[:1] for key, x in example.items()}
        self.adapted = adapt(tail, {"params": self.params}, targets=[TARGET], method=self.method, **first)
        rate = optax.cosine_decay_schedule(budget.learning_rate, budget.steps)
        self.learner = Learner(self.adapted, {"params": self.params}, optax.adamw(rate, weight_decay=0.0))

    def learn(self, task: SmallTask, seed: int, index: int) -> Learnt:
        """One task's LoRA.

        Args:
            task: the task.
            seed: of the LoRA's initial factors; tasks with one seed begin with the same A.
            index: of the task, for the order of its batches.
        """
        fresh = self.adapted.init(jax.random.key(seed), self.params, 1)
        bank = self.learner.learn(self.learner.start(fresh), task.name, self._batches(task, index))
        slot = flat(read_slot(bank.tasks, 0))
        a, b = (np.asarray(next(x for path, x in slot.items() if path.endswith(name))) for name in ("lora_a", "lora_b"))
        adapter = {TARGET: Factors(a, b, self.method.scale)}
        off = {TARGET: Factors(np.zeros_like(a), np.zeros_like(b))}
        return Learnt(adapter, self.accuracy(task, adapter), self.accuracy(task, off))

    def accuracy(self, task: SmallTask, adapter: Adapter) -> float:
        """Fraction of the task's test texts that are right with this adapter."""
        inputs, labels = task.test
        most = MOST_CLASSES * len(labels) // task.classes  # one shape for all tasks
        padded = {key: np.pad(x, ((0, most - len(x)), *[(0, 0)] * (x.ndim - 1))) for key, x in inputs.items()}
        bank = TaskBank({}, self._tree(adapter[TARGET]), (task.name,))
        logits = np.asarray(self.learner.predict(bank, task.name, padded))[: len(labels), : task.classes]
        return float(np.mean(logits.argmax(axis=-1) == labels))

    def _tree(self, factors: Factors) -> Tree:
        """The tree of one slot that holds these factors, which may be of a smaller rank."""
        short = self.budget.rank - factors.rank
        a = np.pad(np.asarray(factors.lora_a), ((0, 0), (0, short)))
        b = np.pad(np.asarray(factors.lora_b) * (factors.scale / self.method.scale), ((0, short), (0, 0)))
        (target,) = self.adapted.targets
        leaves = {"/".join((*target.leaves_path, name)): x for name, x in (("lora_a", a), ("lora_b", b))}
        return nested({path: jnp.asarray(leaf, jnp.float32)[None] for path, leaf in leaves.items()})

    def _batches(self, task: SmallTask, index: int) -> Iterator[dict[str, Any]]:
        inputs, labels = task.train
        random, order = np.random.default_rng([7, index]), np.zeros(0, np.int64)
        for _ in range(self.budget.steps):
            while len(order) < self.budget.batch_size:
                order = np.concatenate([order, random.permutation(len(labels))])
            rows, order = order[: self.budget.batch_size], order[self.budget.batch_size :]
            batch = {key: x[rows] for key, x in inputs.items()}
            weights = np.ones(len(rows), np.float32)
            yield {"inputs": batch, "labels": labels[rows], "weights": weights, "classes": np.int32(task.classes)}
