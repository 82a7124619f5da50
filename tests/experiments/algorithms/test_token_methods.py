"""What replay and distillation make of texts that are completed."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.algorithms.lwf_lora import TokenLwF
from experiments.algorithms.replay import NO_TOKEN, with_replay
from share_jax.train.token_losses import next_token

LABELS = np.array([[3, NO_TOKEN], [1, 2]], np.int32)


def test_a_shorter_batch_is_filled_up_to_the_buffer_without_new_tokens_to_learn() -> None:
    inputs = {"attention_mask": np.ones((2, 3), np.int32), "columns": np.ones((2, 2), np.int32), "targets": LABELS}
    batch: Any = {"inputs": inputs, "labels": LABELS, "weights": np.ones(2, np.float32), "classes": np.int32(0)}
    old = {"attention_mask": (5, 4), "columns": (5, 3), "targets": (5, 3)}
    kept = {name: np.full(shape, 7, np.int32) for name, shape in old.items()}
    places = np.zeros(5, np.int32)
    buffer = {"inputs": kept, "labels": kept["targets"], "classes": places, "head": places, "seen": np.int32(5)}
    made = with_replay(batch, buffer, np.array([0, 4]), 0)
    assert made["labels"].tolist() == [[3, NO_TOKEN, NO_TOKEN], [1, 2, NO_TOKEN], [7, 7, 7], [7, 7, 7]]
    assert made["inputs"]["targets"].tolist() == made["labels"].tolist()
    assert made["inputs"]["columns"].tolist() == [[1, 1, 0], [1, 1, 0], [7, 7, 7], [7, 7, 7]]
    assert made["inputs"]["attention_mask"][0].tolist() == [1, 1, 1, 0]
    assert made["weights"].tolist() == [1, 1, 0, 0]
    assert made["replayed"].tolist() == [0, 0, 1, 1]


def test_distillation_counts_the_tokens_that_are_learnt_and_needs_an_earlier_task() -> None:
    rng = np.random.default_rng(0)
    now, before = (jnp.asarray(rng.normal(size=(2, 2, 5)), jnp.float32) for _ in range(2))
    batch = {"labels": jnp.asarray(LABELS), "weights": jnp.array([1.0, 1.0])}
    loss = TokenLwF(strength=3.0, temperature=2.0).loss(next_token)
    plain = next_token(now, batch).total
    alone = loss({"now": now, "before": before, "known": jnp.float32(0)}, batch)
    np.testing.assert_allclose(alone.total, plain, rtol=1e-6)

    def log_p(logits: Any) -> Any:
        scaled = np.asarray(logits, np.float64) / 2
        return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))

    apart = (np.exp(log_p(before)) * (log_p(before) - log_p(now))).sum(axis=-1)
    expected = float(plain) + 3 * apart[LABELS >= 0].sum()
    found = loss({"now": now, "before": before, "known": jnp.float32(1)}, batch)
    np.testing.assert_allclose(found.total, expected, rtol=1e-4)
