"""A small model, its batches and its steps, for the tests of the train step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from share_jax import SharedA, adapt
from share_jax.bank.slots import read_slot
from share_jax.train import step as steps
from share_jax.train.losses import cross_entropy
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import forward_of, make_train_step

WIDTH, CLASSES, BATCH, TASKS = 16, 3, 8, 4
HEADS = ("head/bias", "head/kernel")
rng = np.random.default_rng(0)


def begin(shared, slot, optimizer):
    return steps.init_state(shared, slot, optimizer, jax.random.key(7))


class Mlp(nn.Module):
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        for index in range(2):
            x = x + nn.Dense(WIDTH, dtype=self.dtype, name=f"layer_{index}")(nn.gelu(x))
        return nn.Dense(CLASSES, dtype=self.dtype, name="head")(x)


def random_tree(shapes):
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)


def random_batch(count: int = BATCH):
    weights = (np.arange(BATCH) < count).astype(np.float32)
    return {
        "inputs": jnp.asarray(rng.standard_normal((BATCH, WIDTH)), jnp.float32),
        "labels": jnp.asarray(rng.integers(0, CLASSES, BATCH), jnp.int32),
        "weights": jnp.asarray(weights),
        "classes": jnp.int32(CLASSES),
    }


def loss(logits, batch):
    return cross_entropy(logits, batch["labels"], batch["weights"], batch["classes"])


def clipped_adamw(rate: float = 1e-2):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(rate, weight_decay=0.1))


class Job:
    """An adapted model with random trees, and steps for it."""

    def __init__(self, method=None, tasks: int = TASKS, dtype=None, space="activation", transform=None):
        self.model = Mlp(dtype)
        x = jnp.zeros((BATCH, WIDTH))
        self.base = random_tree(jax.eval_shape(self.model.init, jax.random.key(0), x))
        method = SharedA() if method is None else method
        self.adapted = adapt(
            self.model, self.base, x, targets="layer_.*kernel", heads="head/.*", method=method, space=space
        )
        self.trees = random_tree(
            jax.eval_shape(lambda key: self.adapted.init(key, self.base["params"], tasks), jax.random.key(0))
        )
        self.forward = forward_of(self.adapted)
        self.transform = clipped_adamw() if transform is None else transform

    def optimizer(self, *, first: bool, **options):
        return task_optimizer(self.transform, self.adapted.heads, train_shared=first, **options)

    def step(self, *, first: bool):
        return make_train_step(self.forward, loss, self.optimizer(first=first), train_shared=first)

    def begin(self, task: int, *, first: bool):
        return begin(self.trees["shared"], read_slot(self.trees["tasks"], task), self.optimizer(first=first))


def bits(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, bits(a), bits(b))


def moved(a, b) -> list[bool]:
    return [not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
