"""A decoder that scores given tokens: what the logits say, adapters of the output layer included, block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import share_jax
from share_jax.adapted import forward_of
from share_jax.bank.slots import read_slot
from share_jax.models import Decoder, DecoderConfig
from share_jax.models import decoder as decoder_file
from share_jax.ops.token_scores import scores_of
from share_jax.train.token_losses import next_token


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("block", [pytest.param(4, marks=pytest.mark.slow), 1024])
def test_scores_are_those_of_the_logits_with_their_gradients(
    tied: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DecoderConfig("llama", 50, 8, 16, 1, 2, 1, 4, 64, tie_word_embeddings=tied)
    model, ids = Decoder(config), jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 7)))
    params = jax.jit(model.init)(jax.random.key(0), ids)["params"]
    target = "embed/embedding" if tied else "head/kernel"
    adapted = share_jax.adapt(model, {"params": params}, ids, targets=[target, r"layer_0/.*/kernel"])
    trees = jax.tree.map(lambda leaf: leaf + 0.1, adapted.init(jax.random.key(1), params, 2))
    slot, forward = read_slot(trees["tasks"], 1), forward_of(adapted)
    columns = jnp.array([[1, 2, 5], [3, 6, 0]])
    labels = jnp.array([[4, 7, 9], [11, 3, -1]])
    monkeypatch.setattr(decoder_file, "BLOCK", block)
    monkeypatch.setattr(share_jax.ops.token_scores, "BLOCK", block)

    def total(slot: dict, inputs: dict) -> jax.Array:
        out = forward({"params": params}, trees["shared"], slot, inputs, None)
        out = out if isinstance(out, tuple) else scores_of(out, labels)
        return next_token(out, {"labels": labels}).total

    inputs = {"input_ids": ids, "columns": columns}
    scored = jax.jit(jax.value_and_grad(total))
    want, got = scored(slot, inputs), scored(slot, inputs | {"targets": labels})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, want)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want[1])) > 0
