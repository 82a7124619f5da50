"""Kernels that a model changes, or reads by ways of its own: the update is right, or refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import SEQUENCE, TOKENS, base_variables, normal, with_adapters

from share_jax import SharedA, adapt
from share_jax.errors import TargetError

X = normal(4, 6)


def mapped(change, **options):
    return nn.map_variables(nn.Dense, "params", lambda tree: jax.tree.map(change, tree), **options)


class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name="after")(mapped(lambda leaf: 2 * leaf, init=True)(6, name="layer")(x))


class Turned(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        turned = mapped(lambda leaf: leaf.T, trans_out_fn=lambda tree: jax.tree.map(jnp.transpose, tree), init=True)
        return turned(self.features, use_bias=False, name="layer")(x)


class Stopped(nn.Module):
    """A tied output layer that no gradient reaches."""

    @nn.compact
    def __call__(self, ids):
        layer = nn.Embed(9, 6, name="layer")
        return nn.Dense(6)(layer(ids)) @ jax.lax.stop_gradient(layer.embedding).T


class Nearest(nn.Module):
    """A codebook: its rows are compared, and the nearest is looked up."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Embed(9, 6, name="layer")
        layer(jnp.zeros(1, int))
        return layer(jnp.argmin(((x[:, None] - layer.embedding[None]) ** 2).sum(-1), -1))


class OwnProduct(nn.Module):
    @nn.compact
    def __call__(self, x):
        def product(x, kernel, dims, precision=None, **options):
            return jax.lax.dot_general(jnp.sign(x), kernel, dims, precision=precision)

        return nn.Dense(32, dot_general=product, name="layer")(x)


class OneRow(nn.Module):
    """Flax's table of one row has it for every id."""

    @nn.compact
    def __call__(self, ids):
        return nn.Embed(1, 6, name="layer")(ids)


def adapted_of(model, x, **options):
    base = base_variables(model, x)
    adapted = adapt(model, base, x, targets="layer/.*", method=SharedA(rank=2), **options)
    return adapted, with_adapters(adapted, base)


@pytest.mark.parametrize(
    ("model", "x"),
    [(Turned(6), X), (Turned(500), X), (Stopped(), TOKENS), (OwnProduct(), X), (OneRow(), TOKENS)],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_output_is_that_of_the_effective_parameters(model, x):
    adapted, variables = adapted_of(model, x)
    singles = [adapted.apply(variables, x, task_id=task) for task in range(3)]
    for task, got in enumerate(singles):
        want = model.apply({"params": adapted.effective_params(variables, task)}, x)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(singles[0] - singles[1])).max() > 1e-2
    ids = (2, 0, 1, 2)
    mixed = adapted.apply(variables, x, task_id=jnp.array(ids))
    np.testing.assert_allclose(mixed, np.stack([singles[t][i] for i, t in enumerate(ids)]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [Scaled(), Nearest()])
def test_what_no_update_can_follow_is_refused_and_right_in_parameter_space(model):
    with pytest.raises(TargetError, match=r"target layer/.*: got a kernel that"):
        adapted_of(model, X)
    adapted, variables = adapted_of(model, X, space="parameter")
    want = model.apply({"params": adapted.effective_params(variables, 1)}, X)
    np.testing.assert_allclose(adapted.apply(variables, X, task_id=1), want, rtol=1e-5, atol=1e-5)


def test_a_head_that_is_changed_is_each_examples_own():
    model = Scaled()
    base = base_variables(model, X)
    adapted = adapt(model, base, X, targets="after/kernel", heads="layer/.*", method=SharedA(rank=2))
    variables = with_adapters(adapted, base)
    singles = [adapted.apply(variables, X, task_id=task) for task in range(3)]
    ids = (2, 0, 1, 2)
    mixed = adapted.apply(variables, X, task_id=jnp.array(ids))
    np.testing.assert_allclose(mixed, np.stack([singles[t][i] for i, t in enumerate(ids)]), rtol=1e-5, atol=1e-5)


class WithLogits(nn.Module):
    """Reads its table past the layer where it is asked to."""

    def setup(self):
        self.layer, self.after = nn.Embed(9, 6), nn.Dense(6)

    def __call__(self, ids, logits=False):
        h = self.after(self.layer(ids))
        return h @ self.layer.embedding.T if logits else h

    def scores(self, ids):
        return self(ids, logits=True)


def test_a_later_call_that_reads_a_kernel_past_its_layer_is_refused():
    adapted, variables = adapted_of(WithLogits(), TOKENS)
    adapted.apply(variables, TOKENS, task_id=1)
    for call in ({"logits": True}, {"method": "scores"}, {"method": WithLogits.scores}):
        with pytest.raises(TargetError, match="target layer/embedding: got a call that reads it without"):
            adapted.apply(variables, TOKENS, task_id=1, **call)
        with pytest.raises(TargetError, match="target layer/embedding"):
            jax.jit(lambda ids, call=call: adapted.apply(variables, ids, task_id=1, **call))(TOKENS)
    adapted.apply(variables, TOKENS, task_id=1, method="__call__")
    base = base_variables(WithLogits(), TOKENS)
    asked = adapt(WithLogits(), base, TOKENS, logits=True, targets="layer/.*", method=SharedA(rank=2))
    variables = with_adapters(asked, base)
    want = WithLogits().apply({"params": asked.effective_params(variables, 1)}, TOKENS, logits=True)
    np.testing.assert_allclose(asked.apply(variables, TOKENS, task_id=1), want, rtol=1e-4, atol=1e-4)


def test_a_call_of_a_known_kind_is_looked_at_once(monkeypatch):
    from share_jax.linen import later_calls

    asked = []
    monkeypatch.setattr(later_calls, "bypassed", lambda *args: asked.append(args) or ())
    adapted, variables = adapted_of(WithLogits(), TOKENS)
    for _ in range(3):
        adapted.apply(variables, TOKENS, task_id=1)
    assert asked == []
    for _ in range(3):
        adapted.apply(variables, TOKENS, False, task_id=1)
    assert len(asked) == 1


class Memory(nn.Module):
    """Attends to rows that all examples share."""

    @nn.compact
    def __call__(self, x, memory):
        keys = nn.Dense(6, name="layer")(memory)
        return nn.softmax(nn.Dense(6, name="query")(x) @ keys.T) @ keys


@pytest.mark.parametrize("rows", [4, 7])
def test_a_memory_as_long_as_the_batch_is_no_batch_where_that_is_said(rows):
    memory = SEQUENCE.reshape(-1, 6)[:rows]
    base = base_variables(Memory(), X, memory)
    adapted = adapt(Memory(), base, X, memory, targets=".*kernel", method=SharedA(rank=2), unbatched=["1"])
    variables = with_adapters(adapted, base)
    singles = [adapted.apply(variables, X, memory, task_id=task) for task in range(3)]
    ids = (2, 0, 1, 2)
    mixed = adapted.apply(variables, X, memory, task_id=jnp.array(ids))
    np.testing.assert_allclose(mixed, np.stack([singles[t][i] for i, t in enumerate(ids)]), rtol=1e-4, atol=1e-4)


class Normed(nn.Module):
    """A layer whose kernel spectral normalisation changes, beside one of Flax's own."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="layer")(nn.SpectralNorm(nn.Dense(6))(x, update_stats=train))


@pytest.mark.parametrize("space", ["activation", "parameter"])
def test_layers_beside_a_spectral_norm_are_adapted(space):
    base = Normed().init(jax.random.key(0), X, train=True)
    adapted = adapt(Normed(), base, X, targets="layer/kernel", method=SharedA(rank=2), space=space)
    variables = with_adapters(adapted, base)
    want = Normed().apply({**base, "params": adapted.effective_params(variables, 1)}, X)
    np.testing.assert_allclose(adapted.apply(variables, X, task_id=1), want, rtol=1e-5, atol=1e-5)


class Intercepted(nn.Module):
    """Squashes what its layer gives."""

    @nn.compact
    def __call__(self, x):
        def squashed(next_fun, args, kwargs, context):
            out = next_fun(*args, **kwargs)
            return jnp.tanh(out) if isinstance(context.module, nn.Dense) else out

        with nn.intercept_methods(squashed):
            return nn.Dense(32, name="layer")(x)


def test_a_layer_that_the_model_intercepts_is_refused_and_right_in_parameter_space():
    adapted, variables = adapted_of(Intercepted(), X)
    for ids in (1, jnp.array([2, 0, 1, 2])):
        with pytest.raises(ValueError, match="layer layer: got a call that the model itself intercepts"):
            adapted.apply(variables, X, task_id=ids)
    adapted, variables = adapted_of(Intercepted(), X, space="parameter")
    want = Intercepted().apply({"params": adapted.effective_params(variables, 1)}, X)
    np.testing.assert_allclose(adapted.apply(variables, X, task_id=1), want, rtol=1e-5, atol=1e-5)
