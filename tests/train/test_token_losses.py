"""Next-token prediction: sums over tokens that count, whatever the output's form, and in blocks as in one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from share_jax.ops.token_scores import TokenScores, score_in_blocks, scores_of
from share_jax.train.token_losses import bits_per_byte, next_token

VOCAB = 11


@pytest.fixture(scope="module")
def batch() -> dict:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, VOCAB, (3, 5)).astype(np.int32)
    labels[1, 2:] = -1
    weights = rng.integers(0, 2, (3, 5)).astype(np.float32)
    weights[:, 0] = 1
    return {"logits": rng.normal(size=(3, 5, VOCAB)).astype(np.float32), "labels": labels, "weights": weights}


def test_sums_are_those_of_optax(batch: dict) -> None:
    losses = optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(batch["logits"]), jnp.maximum(batch["labels"], 0)
    )
    counting = batch["weights"] * (batch["labels"] >= 0)
    sums = next_token(jnp.asarray(batch["logits"]), batch)
    assert float(sums.total) == pytest.approx(float((losses * counting).sum()), rel=1e-6)
    assert float(sums.weight) == counting.sum() == float(sums.metrics["tokens"])
    right = batch["logits"].argmax(-1) == batch["labels"]
    assert float(sums.metrics["correct"]) == (right * counting).sum()
    assert float(sums.metrics["exact"]) == np.all(right | (counting == 0), axis=1).sum()
    assert float(sums.metrics["examples"]) == 3


def test_scores_in_place_of_logits_give_the_same(batch: dict) -> None:
    scores = scores_of(jnp.asarray(batch["logits"]), jnp.asarray(batch["labels"]))
    for from_scores, from_logits in zip(
        jax.tree.leaves(next_token(scores, batch)), jax.tree.leaves(next_token(batch["logits"], batch)), strict=True
    ):
        np.testing.assert_array_equal(from_scores, from_logits)


def test_a_row_that_only_fills_up_counts_for_nothing(batch: dict) -> None:
    whole = {"labels": batch["labels"], "weights": np.array([1, 1, 0], np.float32)}
    part = {"labels": batch["labels"][:2], "weights": np.array([1, 1], np.float32)}
    with_padding, without = next_token(batch["logits"], whole), next_token(batch["logits"][:2], part)
    np.testing.assert_allclose(with_padding.total, without.total, rtol=1e-6)
    assert with_padding.metrics.keys() == without.metrics.keys()
    assert all(float(with_padding.metrics[name]) == float(without.metrics[name]) for name in without.metrics)


def test_a_token_past_the_vocabulary_is_no_number_where_it_counts(batch: dict) -> None:
    labels = batch["labels"].copy()
    labels[0, 0] = VOCAB
    assert np.isnan(next_token(batch["logits"], {"labels": labels}).total)
    weights = np.ones(labels.shape, np.float32)
    weights[0, 0] = 0
    assert np.isfinite(next_token(batch["logits"], {"labels": labels, "weights": weights}).total)


@pytest.mark.parametrize("block", [1, 4, 15, 100])
def test_blocks_change_neither_scores_nor_gradients(block: int) -> None:
    rng = np.random.default_rng(1)
    states, kernel = jnp.asarray(rng.normal(size=(3, 5, 7))), jnp.asarray(rng.normal(size=(7, VOCAB)))
    tokens = jnp.asarray(rng.integers(-1, VOCAB, (3, 5)))

    def total(states: jax.Array, kernel: jax.Array, block: int) -> tuple[jax.Array, TokenScores]:
        project = jax.checkpoint(lambda part, wanted: scores_of(part @ kernel, wanted))
        scores = score_in_blocks(project, states, tokens, block)
        return scores.nats.sum(), scores

    scored = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True), static_argnums=2)
    got, want = (scored(states, kernel, each) for each in (block, 10**6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_bits_per_byte_of_a_fair_coin() -> None:
    assert bits_per_byte(np.log(2) * 100, 100) == pytest.approx(1)
