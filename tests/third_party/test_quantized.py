"""Bases that qwix has quantised after training: two tasks on codes that stay as they are, in Linen and in NNX."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import share_jax
from share_jax.errors import TargetError
from share_jax.trees import flat

qwix = pytest.importorskip("qwix", reason="make test-models installs it")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 8)), jnp.float32)
LABELS = np.array([0, 1, 0, 1])
CODES = {"int8": {"weight_qtype": jnp.int8}, "nf4": {"weight_qtype": "nf4", "tile_size": 4}}
METHOD = share_jax.SharedA(rank=2)


@pytest.fixture(autouse=True)
def _ranks_may_differ() -> Any:
    with jax.numpy_rank_promotion("allow"):
        yield


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(x)
        return nn.Dense(2, name="down")(nn.gelu(nn.Dense(12, name="up")(x)).mean(1))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.ffn = nnx.List([nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 2, rngs=rngs)])

    def __call__(self, x):
        x = x + self.attention(x)
        return self.ffn[1](nnx.gelu(self.ffn[0](x)).mean(1))


def rule(**codes):
    return qwix.PtqProvider([qwix.QuantizationRule(module_path=".*", **codes)])


def linen(**codes):
    params = Linen().init(jax.random.key(0), X)["params"]
    model = qwix.quantize_model(Linen(), rule(**codes))
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    base = {"params": qwix.quantize_params(params, shapes)}
    return lambda **options: (share_jax.adapt(model, base, X, targets=".*kernel", method=METHOD, **options), base)


def of_nnx(**codes):
    model = qwix.quantize_model(Nnx(nnx.Rngs(0)), rule(**codes), X)

    def adapt(**options):
        adapted = share_jax.adapt(model, X, targets=".*kernel", method=METHOD, **options)
        return adapted, adapted.variables(model)

    return adapt


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("make", [linen, of_nnx])
def test_two_tasks_on_frozen_codes(make, codes, tmp_path) -> None:
    adapted, base = make(**CODES[codes])()
    assert len(adapted.targets) == 6
    before = jax.tree.map(np.array, base)
    learner = share_jax.Learner(adapted, base, optax.adam(1e-2))
    empty = learner.start(adapted.init(jax.random.key(0), base["params"], 2))
    plain = adapted.model.apply(base, X)
    np.testing.assert_allclose(learner.answer(learner.base, empty.shared, jax.tree.map(lambda x: x[0], empty.tasks), X),
                               plain, rtol=1e-5, atol=1e-6)  # fmt: skip
    bank = learner.learn(empty, "one", [{"inputs": X, "labels": LABELS}] * 8)
    first = np.asarray(learner.predict(bank, "one", X))
    bank = learner.learn(bank, "two", [{"inputs": X, "labels": 1 - LABELS}] * 8)
    np.testing.assert_array_equal(learner.predict(bank, "one", X), first)
    jax.tree.map(np.testing.assert_array_equal, base, before)
    single = [first, np.asarray(learner.predict(bank, "two", X))]
    assert not np.allclose(single[0], single[1])
    mixed = learner.predict(bank, LABELS, X)
    np.testing.assert_allclose(mixed, [single[task][row] for row, task in enumerate(LABELS)], rtol=1e-5, atol=1e-6)
    share_jax.save_bank(tmp_path / "bank", learner, bank)
    again = share_jax.load_bank(tmp_path / "bank", learner, empty)
    np.testing.assert_array_equal(learner.predict(again, "one", X), first)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("make", [linen, of_nnx])
def test_parameter_space_is_refused_in_one_line(make, codes) -> None:
    with pytest.raises(TargetError, match=r"a quantised kernel of u?int[48] codes.*space='activation'") as told:
        make(**CODES[codes])(space="parameter")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("make", [linen, of_nnx])
def test_quantised_inputs_are_refused_in_one_line(make) -> None:
    """Products of integers would get a quantised input of the adapter, too."""
    with pytest.raises(TargetError, match=r"before a scale has decoded it.*quantise the weights alone"):
        make(weight_qtype=jnp.int8, act_qtype=jnp.int8)()


def test_the_update_is_exact_beside_what_qwix_decodes() -> None:
    """Of a layer alone: the difference that a task makes is x @ A @ B, with nothing of it quantised."""
    model = qwix.quantize_model(nnx.Linear(8, 5, rngs=nnx.Rngs(0)), rule(**CODES["nf4"]), X)
    adapted = share_jax.adapt(model, X, targets="kernel", method=METHOD)
    base = adapted.variables(model)
    trees = adapted.init(jax.random.key(0), base["params"], 1)
    b = jnp.asarray(np.random.default_rng(1).standard_normal((1, 2, 5)), jnp.float32)
    leaves = flat(trees["shared"])
    out = adapted.apply({**base, **trees, "tasks": {"lora_b": b}}, X, task_id=0)
    want = METHOD.scale * np.asarray(X, np.float64) @ np.asarray(leaves["lora_a"], np.float64) @ np.asarray(b[0])
    np.testing.assert_allclose(out - model(X), want, rtol=1e-4, atol=1e-6)
