"""SmolLM2-135M, the real weights of the package registry: it knows a capital, and English in few bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.assets import smollm2_file
from share_jax.bank.bank import TaskBank
from share_jax.linen.adapted_model import adapt
from share_jax.models.generation import generate
from share_jax.models.pretrained_decoder import load_decoder

ENGLISH = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair."
)
"""The first sentence of Dickens' A Tale of Two Cities (1859), up to its first semicolon."""
UNSEEN = (
    "The small shop by the canal opens at nine on weekdays and sells bread, cheese and second-hand bicycles; on "
    "Sundays its owner repairs clocks for neighbours who pay her in stories."
)
"""Written for this test."""


@pytest.fixture(scope="module")
def loaded():
    return load_decoder(smollm2_file())


@pytest.mark.slow
def test_the_capital_of_italy_and_bits_per_byte(loaded):
    model, params, tokenizer = loaded
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 134_515_008
    run = jax.jit(model.apply)
    ids, _ = tokenizer.rows(["The capital of Italy is"])
    assert tokenizer.decode([int(run({"params": params}, ids)[0, -1].argmax())]) == " Rome"
    bits = []
    for text in (ENGLISH, UNSEEN):
        ids, _ = tokenizer.rows([text])
        assert tokenizer.decode(ids[0]) == text
        likely = np.asarray(jax.nn.log_softmax(run({"params": params}, ids)))[0, :-1]
        nats = -likely[np.arange(ids.shape[1] - 1), ids[0, 1:]].sum()
        bits.append(nats / np.log(2) / len(text.encode()))
    np.testing.assert_allclose(bits, [0.5981, 1.5108], atol=5e-4)  # transformers 5.24 on this file: 0.59807, 1.51077


@pytest.mark.slow
def test_it_writes_and_answers_in_its_chat_form(loaded):
    model, params, tokenizer = loaded
    kernels = r"layer_29/attention/query/kernel"
    adapted = adapt(model, {"params": params}, jnp.ones((1, 4), jnp.int32), targets=kernels)
    made = adapted.init(jax.random.key(0), params, 1)
    bank = TaskBank(made["shared"], made["tasks"], ("fresh",))
    chat = tokenizer.chat([{"role": "user", "content": "What is the capital of France? Answer in one word."}])
    given = {"params": params, "tokenizer": tokenizer, "max_tokens": 12}
    (answer,) = generate(adapted, bank, "fresh", [chat], special=False, **given)
    assert "Paris" in answer.text
    (text,) = generate(adapted, bank, "fresh", ["The capital of Italy is"], **given)
    assert text.text.startswith(" Rome")
