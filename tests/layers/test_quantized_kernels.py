"""Kernels that are stored as codes: adapted where a product reads what they are decoded to, and frozen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import share_jax
from share_jax.checkpoint.fingerprints import fingerprint
from share_jax.errors import TargetError
from share_jax.trees import flat

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 8)), jnp.float32)
LABELS = np.array([0, 1, 2, 0])
METHOD = share_jax.SharedA(rank=2)


class Codes:
    """An int8 kernel as libraries for quantisation store one: a tree that has the kernel's shape."""

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    shape = property(lambda self: self.codes.shape)
    ndim = property(lambda self: self.codes.ndim)
    dtype = property(lambda self: self.scale.dtype)

    def decoded(self):
        tiles = self.codes.astype(jnp.float32).reshape(self.scale.shape[0], -1, self.codes.shape[1])
        return (tiles * self.scale[:, None]).reshape(self.codes.shape)


jax.tree_util.register_pytree_node(Codes, lambda own: ((own.codes, own.scale), None), lambda _, own: Codes(*own))


def coded(d_in, d_out, tiles=2):
    codes = RNG.integers(-100, 100, (d_in, d_out)).astype(np.int8)
    return Codes(jnp.asarray(codes), jnp.asarray(0.01 * RNG.random((tiles, d_out)), jnp.float32))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        own = self.get_variable("params", "kernel")
        kernel = own.decoded() if isinstance(own, Codes) else own
        return nn.Dense(3, name="out")(nn.relu(x @ kernel))


def linen():
    kernel, out = coded(8, 6), {"kernel": jnp.asarray(RNG.standard_normal((6, 3)), jnp.float32), "bias": jnp.zeros(3)}
    base = {"params": {"kernel": kernel, "out": out}}
    return share_jax.adapt(Net(), base, X, targets=["kernel", "out/kernel"], method=METHOD), base


class NnxNet(nnx.Module):
    def __init__(self, kernel, rngs):
        self.layers = nnx.List([Layer(kernel)])
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(jax.nn.relu(self.layers[0](x)))


class Layer(nnx.Module):
    def __init__(self, kernel):
        self.kernel = nnx.data(jax.tree.map(nnx.Param, kernel))

    def __call__(self, x):
        return x @ Codes(self.kernel.codes[...], self.kernel.scale[...]).decoded()


def of_nnx():
    model = NnxNet(coded(8, 6), nnx.Rngs(0))
    adapted = share_jax.adapt(model, X, targets=".*kernel", method=METHOD)
    return adapted, adapted.variables(model)


@pytest.mark.parametrize("make", [linen, of_nnx])
def test_two_tasks_are_learnt_on_a_quantised_base(make):
    adapted, base = make()
    (path,) = (target.path for target in adapted.targets if "out" not in target.path)
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(base)]
    learner = share_jax.Learner(adapted, base, optax.adam(3e-2))
    bank = learner.start(adapted.init(jax.random.key(0), base["params"], 2))
    bank = learner.learn(bank, "a", [{"inputs": X, "labels": LABELS}] * 4)
    first = np.asarray(learner.predict(bank, "a", X))
    bank = learner.learn(bank, "b", [{"inputs": X, "labels": LABELS[::-1].copy()}] * 4)
    np.testing.assert_array_equal(learner.predict(bank, "a", X), first)
    for leaf, old in zip(jax.tree.leaves(base), before, strict=True):
        np.testing.assert_array_equal(leaf, old)
    mixed = learner.predict(bank, ["a", "b", "b", "a"], X)
    np.testing.assert_allclose(mixed[::3], first[::3], rtol=1e-5, atol=1e-6)
    # The oracle: the same bank on the decoded kernel, in the model that has floats.
    stored = flat(base["params"])[path]
    scale = stored.scale if isinstance(stored, Codes) else stored.others[0]
    leaves = {**flat(base["params"]), path: Codes(stored.codes, scale).decoded()}
    own = {name: np.asarray(leaf) for name, leaf in {**flat(bank.shared), **flat(bank.tasks)}.items()}
    where = path.rpartition("/")[0]
    names = [f"{where}/{leaf}".strip("/") for leaf in ("lora_a", "lora_b")]
    update = METHOD.scale * own[names[0]] @ own[names[1]][1]
    out = next(target for target in adapted.targets if "out" in target.path)
    head = leaves[out.path] + METHOD.scale * own["out/lora_a"] @ own["out/lora_b"][1]
    bias = np.asarray(leaves["out/bias"])[None]
    hidden = jax.nn.relu(X @ (leaves[path] + update))
    np.testing.assert_allclose(learner.predict(bank, "b", X), hidden @ head + bias, rtol=1e-4, atol=1e-5)
    with pytest.raises(TargetError, match="activation space decodes"):
        adapted.effective_params({**base, "shared": bank.shared, "tasks": bank.tasks}, 0)


@pytest.mark.parametrize("make", [linen, of_nnx])
def test_the_fingerprint_is_of_codes_and_scales(make):
    _, base = make()
    whole = fingerprint(base["params"]).whole
    assert fingerprint(jax.tree.map(lambda leaf: leaf + 0, base["params"])).whole == whole
    changed = jax.tree.map(lambda leaf: leaf * 2 if leaf.dtype == jnp.float32 else leaf, base["params"])
    assert fingerprint(changed).whole != whole


def test_parameter_space_and_heads_refuse_codes_in_one_line():
    _, base = linen()
    for options, words in (
        ({"targets": "kernel", "space": "parameter"}, "int8 codes.*space='activation'"),
        ({"targets": "out/kernel", "heads": "kernel"}, "head kernel: got int8 numbers"),
    ):
        given: Any = options
        with pytest.raises(TargetError, match=words) as told:
            share_jax.adapt(Net(), base, X, **given)
        assert "\n" not in str(told.value)
    model = NnxNet(coded(8, 6), nnx.Rngs(0))
    with pytest.raises(TargetError, match=r"int8 codes.*space='activation'"):
        share_jax.adapt(model, X, targets="layers/0/kernel", space="parameter")
    with pytest.raises(TargetError, match="head layers/0/kernel: got int8 numbers"):
        share_jax.adapt(model, X, targets="out/kernel", heads="layers/0/kernel")


TABLE = jnp.linspace(-1, 1, 16)


def by_table(p, x):
    return x @ (TABLE[p["w"].astype(jnp.int32)] * p["scale"])


def by_zero_point(p, x):
    return x @ ((p["w"].astype(jnp.float32) - p["zero"]) / p["scale"])


DECODED = {"table": by_table, "zero point": by_zero_point}
EARLY = {
    "scaled after": lambda p, x: (x @ p["w"].astype(jnp.float32)) * p["scale"],
    "integers": lambda p, x: jax.lax.dot(jnp.round(x).astype(jnp.int8), p["w"]).astype(jnp.float32) * p["scale"],
    "looked up": lambda p, x: p["w"][jnp.arange(4)].astype(jnp.float32),
}


def parameters():
    scale, zero = (jnp.asarray(RNG.random((1, 6)) + 0.5, jnp.float32) for _ in range(2))
    return {"w": jnp.asarray(RNG.integers(0, 16, (8, 6)), jnp.int8), "scale": scale, "zero": zero}


@pytest.mark.parametrize("name", DECODED)
def test_the_update_is_beside_the_decoded_kernel(name):
    params = parameters()
    adapted = share_jax.adapt_function(DECODED[name], params, X, targets="w", method=METHOD)
    trees = adapted.init(jax.random.key(0), params, 2)
    b = jnp.asarray(RNG.standard_normal((2, 2, 6)), jnp.float32)
    variables = {"params": params, "shared": trees["shared"], "tasks": {"lora_b": b}}
    wanted = [DECODED[name](params, X) + METHOD.scale * X @ trees["shared"]["lora_a"] @ b[task] for task in range(2)]
    np.testing.assert_allclose(adapted.apply(variables, X, task_id=1), wanted[1], rtol=1e-5, atol=1e-5)
    mixed = adapted.apply(variables, X, task_id=np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(mixed[::2], wanted[0][::2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", EARLY)
def test_a_product_with_bare_codes_is_refused(name):
    with pytest.raises(TargetError, match=r"before a scale has decoded it.*weights alone"):
        share_jax.adapt_function(EARLY[name], parameters(), X, targets="w", method=METHOD)
