"""Models for the tests of `adapt`, random trees that cost no compilation, and merged kernels worked out in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

TASKS = 3
MIXED = (2, 0, 1, 2)
TOKENS = jnp.array([[1, 2, 3, 0], [4, 5, 6, 8], [7, 8, 0, 1], [3, 3, 2, 2]])


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).standard_normal(shape), jnp.float32)


SEQUENCE = normal(4, 5, 6)
IMAGE = normal(4, 6, 6, 3)


def filled(tree, seed: int = 0):
    """The tree with every leaf drawn at random, so that nothing hides behind a zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), tree)


def base_variables(model: nn.Module, *args, **kwargs):
    """Variables of the shapes of `model.init`, at random."""
    return filled(dict(jax.eval_shape(lambda key: model.init(key, *args, **kwargs), jax.random.key(0))))


def with_adapters(adapted, base, num_tasks: int = TASKS):
    """`base` with random `shared` and `tasks` trees of the shapes of `adapted.init`."""
    trees = jax.eval_shape(lambda key: adapted.init(key, base["params"], num_tasks), jax.random.key(0))
    return {**base, **filled(trees, 1)}


def merged_params(variables, task: int, scale: float, heads=()):
    """base + scale * A @ B by numpy, for every layer that has an adapter, layers stacked by a scan one by one."""
    params = dict(traverse_util.flatten_dict(variables["params"]))
    shared = traverse_util.flatten_dict(variables["shared"])
    tasks = traverse_util.flatten_dict(variables["tasks"])
    for path, stack in tasks.items():
        if "/".join(path) in heads:
            params[path] = stack[task]
        if path[-1] != "lora_b":
            continue
        kernel_path = next((*path[:-1], name) for name in ("kernel", "embedding") if (*path[:-1], name) in params)
        kernel = np.array(params[kernel_path], np.float64)
        lora_b = np.asarray(stack[task], np.float64)
        a_path = (*path[:-1], "lora_a")
        lora_a = np.asarray(tasks[a_path][task] if a_path in tasks else shared[a_path], np.float64)
        layers = np.ndindex(lora_a.shape[:-2])
        for layer in layers:
            kernel[layer] += scale * (lora_a[layer] @ lora_b[layer]).reshape(kernel[layer].shape)
        params[kernel_path] = jnp.asarray(kernel, jnp.float32)
    return traverse_util.unflatten_dict(params)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(6)(nn.gelu(nn.Dense(7)(x)))


class Twice(nn.Module):
    """Two blocks of one class, plain or behind a lifted transform, then a layer of its own."""

    block: type[nn.Module] = Mlp

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(self.block()(self.block()(x)))


class SetupStyle(nn.Module):
    def setup(self):
        self.layers = [nn.Dense(6), nn.Dense(6)]
        self.last = nn.Dense(features=3, use_bias=False)

    def __call__(self, x):
        for layer in self.layers:
            x = nn.tanh(layer(inputs=x))
        return self.last(x)


class Reused(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(6)
        return layer(nn.tanh(layer(x)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))


class General(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.DenseGeneral(5, axis=(-1, -2))(nn.DenseGeneral((2, 3))(x))


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), strides=2, padding="VALID")(x)
        return nn.Conv(6, (2, 2), feature_group_count=2, kernel_dilation=(1, 2))(nn.relu(x)).mean((1, 2))


class TiedLanguageModel(nn.Module):
    def setup(self):
        self.embed = nn.Embed(9, 6)
        self.mix = nn.Dense(6)

    def __call__(self, tokens):
        return self.embed.attend(nn.tanh(self.mix(self.embed(tokens))))


class MethodJit(nn.Module):
    @nn.jit
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.tanh(nn.Dense(6)(x)))


class SetupMethodJit(nn.Module):
    def setup(self):
        self.inner = nn.Dense(6)
        self.last = nn.Dense(3)

    @nn.jit
    def encode(self, x):
        return nn.tanh(self.inner(x))

    def __call__(self, x):
        return self.last(self.encode(self.encode(x)))


class FunctionRemat(nn.Module):
    @nn.compact
    def __call__(self, x):
        inner = nn.Dense(6)
        return nn.Dense(3)(nn.remat(lambda module, h: nn.tanh(inner(h)))(self, x))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(6)(nn.gelu(nn.Dense(7)(x))), None


class Scanned(nn.Module):
    """Three layers by nn.scan; the named collections have a layer axis, the others are broadcast or left out."""

    stacked: tuple[str, ...] = ("params", "shared", "tasks")
    broadcast: tuple[str, ...] = ()
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(Layer, prevent_cse=False) if self.remat else Layer,
            variable_axes=dict.fromkeys(self.stacked, 0),
            variable_broadcast=list(self.broadcast),
            split_rngs={"params": bool(self.stacked)},
            length=3,
        )
        return nn.Dense(3)(layers(name="layers")(x, None)[0])


class Ensemble(nn.Module):
    """Three heads on one input by nn.vmap."""

    carried: tuple[str, ...] = ("params", "shared", "tasks")

    @nn.compact
    def __call__(self, x):
        heads = nn.vmap(
            nn.Dense,
            in_axes=None,
            out_axes=-1,
            axis_size=3,
            variable_axes=dict.fromkeys(self.carried, 0),
            split_rngs={"params": True},
        )
        return heads(4, name="heads")(nn.Dense(6)(x))


class Conditional(nn.Module):
    @nn.compact
    def __call__(self, x):
        left, right = nn.Dense(6, name="left"), nn.Dense(6, name="right")
        if self.is_initializing():
            left(x)
            right(x)
        return nn.cond(x.sum() > 1e6, lambda m, h: left(h), lambda m, h: right(h), self, x)
