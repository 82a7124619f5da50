"""NNX modules for the tests, and trees for them whose every leaf is drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from share_jax.trees import flat, nested

IDS = np.array([[1, 2, 3, 0, 5], [4, 5, 6, 8, 1], [7, 8, 0, 1, 1], [3, 3, 2, 2, 9]])
MIXED = np.array([2, 0, 1, 1])
CLOSE = {"rtol": 2e-4, "atol": 1e-5}


def drawn(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(0.3 * np.random.default_rng((seed, *shape)).standard_normal(shape), jnp.float32)


def with_tasks(adapted, base, tasks: int = 3):
    shapes = jax.eval_shape(partial(adapted.init, num_tasks=tasks), jax.random.key(0), base["params"])
    leaves = {path: drawn(*leaf.shape, seed=i) for i, (path, leaf) in enumerate(flat(shapes).items())}
    return {**base, "shared": {}, **nested(leaves)}


class Scaled(nnx.Module):
    """A class of one's own: an einsum that no layer of NNX computes."""

    def __init__(self, rngs):
        self.w = nnx.Param(0.3 * jax.random.normal(rngs.params(), (2, 8, 4)))

    def __call__(self, x):
        return jnp.einsum("btd,ndh->bnth", x, self.w[...] * 0.5).swapaxes(1, 2).reshape(x.shape)


class Block(nnx.Module):
    def __init__(self, rngs, dropout=0.0):
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.ffn = nnx.List([nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 8, rngs=rngs)])
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.dropout(self.ffn[1](jax.nn.relu(self.ffn[0](x))))


class Classifier(nnx.Module):
    """Embedding, blocks in a list, an einsum, a convolution, and a head."""

    def __init__(self, rngs, dropout=0.0, blocks=1):
        self.embed = nnx.Embed(10, 8, rngs=rngs)
        self.blocks = nnx.List([Block(rngs, dropout) for _ in range(blocks)])
        self.scaled = Scaled(rngs)
        self.window = nnx.Conv(8, 8, (3,), rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head((x + self.scaled(x) + self.window(x)).mean(1))


class Tied(nnx.Module):
    """A table that is looked up, attended to, and shared by a second module."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(10, 8, rngs=rngs)
        self.body = nnx.Linear(8, 8, rngs=rngs)
        self.output = self.embed
        self.again = nnx.Linear(8, 8, rngs=rngs)
        self.again.kernel = self.body.kernel

    def __call__(self, ids):
        return self.output.attend(self.again(jax.nn.relu(self.body(self.embed(ids)))))


class Layers(nnx.Module):
    """Layers made by nnx.vmap and run by nnx.scan."""

    def __init__(self, rngs, layers=3):
        @nnx.split_rngs(splits=layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs):
            return nnx.Linear(8, 8, rngs=rngs)

        self.layers = make(rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(layer, x):
            return x + jax.nn.tanh(layer(x))

        return self.last(run(self.layers, x))
