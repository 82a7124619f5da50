"""What the tests of the parallel steps share: a job whose sizes eight devices divide, and plain SGD as a probe.

After one step of SGD with rate 1 the change of a leaf is its gradient, so comparing states compares gradients.
"""

import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from share_jax import SeparateLoRA, Share, SharedA, adapt
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.share import ShareAdapt
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.sharding.placement import put
from share_jax.train.losses import classification
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import forward_of, init_state

WIDTH, CLASSES, BATCH, TASKS = 16, 8, 16, 8
SHAPES = [MeshShape(d, f, 8 // (d * f)) for d in (1, 2, 4, 8) for f in (1, 2, 4, 8) if 8 % (d * f) == 0]
METHODS = {
    "shared_a": SharedA(rank=3),
    "separate": SeparateLoRA(rank=3),
    "share": Share(num_basis=5, pseudo_rank=2),
    "share_adapt": ShareAdapt(phi=3, pseudo_rank=2),
}


class Block(nn.Module):
    """Attention and a perceptron: kernels of two and of three axes."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(4, name="attention")(nn.LayerNorm(name="norm")(x))
        return x + nn.Dense(WIDTH, name="down")(nn.gelu(nn.Dense(2 * WIDTH, name="up")(x)))


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        for index in range(1):
            x = Block(name=f"layer_{index}")(x)
        return nn.Dense(CLASSES, name="head")(x.mean(axis=1))


def random_tree(shapes, seed: int = 0):
    """Small enough numbers for a loss near that of a fresh model: a steeper one would magnify rounding."""
    draw = np.random.default_rng(seed).standard_normal
    return jax.tree.map(lambda leaf: jnp.asarray(0.15 * draw(leaf.shape), leaf.dtype), shapes)


def random_batch(count: int = BATCH, size: int = BATCH, seed: int = 1):
    """A batch of which the last examples are padding that would show: large inputs, weight 0."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((size, 3, WIDTH)).astype(np.float32)
    inputs[count:] *= 3
    return {
        "inputs": inputs,
        "labels": rng.integers(0, CLASSES - 1, size).astype(np.int32),
        "weights": (np.arange(size) < count).astype(np.float32),
        "classes": np.int32(CLASSES - 1),
    }


class ParallelJob:
    """An adapted model with random trees."""

    def __init__(self, method="shared_a", *, first=True, rate=1.0, transform=None):
        x = jnp.zeros((1, 3, WIDTH))
        self.first = first
        self.model = Model()
        self.base = random_tree(jax.eval_shape(self.model.init, jax.random.key(0), x))
        targets = ["layer_.*/(up|down|attention/.*)/kernel"]
        self.adapted = adapt(self.model, self.base, x, targets=targets, heads="head/.*", method=METHODS[method])
        self.trees = random_tree(
            jax.eval_shape(lambda key: self.adapted.init(key, self.base["params"], TASKS), jax.random.key(0)), 2
        )
        self.forward = forward_of(self.adapted)
        transform = optax.sgd(rate) if transform is None else transform
        self.optimizer = task_optimizer(transform, self.adapted.heads, train_shared=first)
        self.parts = (self.forward, classification, self.optimizer)

    def init_state(self, task: int = 1):
        return init_state(self.trees["shared"], read_slot(self.trees["tasks"], task), self.optimizer, jax.random.key(7))


def close(got, want, tolerance: float = 1e-6):
    """Equal within `tolerance` times the largest entry of each leaf, or times 1 if that is smaller."""

    def leaf(a, b):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max(initial=0))))

    jax.tree.map(leaf, got, want)


RAGGED, STEPS = 11, 4


def saved_tree():
    """Known values: leaves that every mesh splits in another way, a bfloat16 one and a counter."""
    rng = np.random.default_rng(5)
    return {
        "layer_0": {
            "up": {
                "lora_a": rng.standard_normal((WIDTH, 3)).astype(np.float32),
                "lora_b": rng.standard_normal((3, 2 * WIDTH)).astype(np.float32),
            }
        },
        "half": np.asarray(jnp.asarray(rng.standard_normal((4, 4)), jnp.bfloat16)),
        "step": np.array(17, np.int32),
    }


def tree_of(layout, *, zeros: bool = False):
    """`saved_tree` on a mesh, or empty leaves of its shapes there."""
    tree = saved_tree()
    tree = jax.tree.map(np.zeros_like, tree) if zeros else tree
    return put(tree, layout.shared(tree))


def digest_of(tree) -> str:
    """One digest over shapes, dtypes and bytes of all leaves."""
    whole = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        whole.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
    return whole.hexdigest()
