"""Attention against a plain softmax in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from share_jax.models.attention import LEAST_ROWS, MOST_BLOCKS, attend, attend_heads


def drawn(dtype=np.float32, scale: float = 1.0):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 5, 3, 4)) * scale
    key, value = rng.normal(size=(2, 2, 7, 3, 4))
    bias = np.where(rng.random((2, 1, 1, 7)) < 0.3, -1e9, 0.0).astype(np.float32)
    bias[..., 0] = 0  # something is left to attend to
    return *(jnp.asarray(x, dtype) for x in (query, key, value)), jnp.asarray(bias)


def plain(query, key, value, bias):
    query, key, value, bias = (np.asarray(x, np.float64) for x in (query, key, value, bias))
    scores = np.einsum("bnhd,bmhd->bhnm", query, key) / np.sqrt(query.shape[-1]) + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(axis=-1, keepdims=True), value)


@pytest.mark.parametrize("scale", [1.0, 100.0])  # scores near 1, and far beyond what exp can take
def test_it_is_softmax_attention(scale: float) -> None:
    inputs = drawn(scale=scale)
    out = attend(*inputs)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, plain(*inputs), rtol=0, atol=1e-5)


def test_what_is_masked_has_no_say() -> None:
    query, key, value, bias = drawn()
    hidden = (bias < 0)[:, 0, 0, :, None, None]
    np.testing.assert_array_equal(
        attend(query, jnp.where(hidden, 50.0, key), jnp.where(hidden, 1e6, value), bias),
        attend(query, key, value, bias),
    )


def test_gradients_are_those_of_the_plain_form() -> None:
    inputs = drawn()

    def form(query, key, value, bias):
        scores = jnp.einsum("bnhd,bmhd->bhnm", query, key) / 2 + bias  # the root of d = 4
        return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores, axis=-1), value)

    def slopes(run):
        return jax.grad(lambda *x: jnp.sum(jnp.sin(run(*x, inputs[3]))), argnums=(0, 1, 2))(*inputs[:3])

    for mine, theirs in zip(slopes(attend), slopes(form), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [LEAST_ROWS, LEAST_ROWS + 3, LEAST_ROWS * MOST_BLOCKS + 40])
def test_blocks_of_a_causal_text_are_the_whole_text(n: int) -> None:
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, heads, n, 4)), jnp.float32) for heads in (4, 2, 2))
    documents = np.arange(n) // 50  # no token sees another document
    seen = np.tril(np.ones((n, n), bool)) & (documents[:, None] == documents)
    bias = jnp.where(seen, 0.0, -1e9).astype(jnp.float32)[None, None]

    def form(causal: bool):
        out, back = jax.vjp(lambda *x: attend_heads(*x, bias, causal=causal), query, key, value)
        return out, *back(jnp.cos(out))

    for mine, whole in zip(form(causal=True), form(causal=False), strict=True):
        np.testing.assert_allclose(mine, whole, rtol=0, atol=1e-5)
    count = str(jax.make_jaxpr(lambda *x: attend_heads(*x, bias, causal=True))(query, key, value)).count(" exp ")
    assert count == min(MOST_BLOCKS, -(-n // LEAST_ROWS))


def test_flax_takes_it_for_its_own() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 12))
    mine, theirs = (nn.MultiHeadDotProductAttention(3, **own) for own in ({"attention_fn": attend}, {}))
    variables = theirs.init(jax.random.key(1), x)
    np.testing.assert_allclose(mine.apply(variables, x), theirs.apply(variables, x), rtol=0, atol=1e-5)


def test_bfloat16_stays_near() -> None:
    inputs = drawn(jnp.bfloat16)
    out = attend(*inputs)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), plain(*inputs), rtol=0, atol=0.03)
