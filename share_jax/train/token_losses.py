"""The loss of next-token prediction: nats over the tokens that count.

Source: Shannon 1951, "Prediction and Entropy of Printed English", for bits per character, here of UTF-8's bytes.
"""

import math
from typing import Any

import jax.numpy as jnp

from share_jax.annotations import Float
from share_jax.ops.token_scores import TokenScores, scores_of
from share_jax.train.losses import LossSums, task_loss
from share_jax.typing import Array


@task_loss(weighted=True)
def next_token(output: TokenScores | Float[Array, "batch n vocab"], batch: Any) -> LossSums:
    """Cross entropy of the tokens that count, in nats, float32.

    Args:
        output: a decoder's `TokenScores` of the labels, or logits (batch, n, vocabulary) of the places that have them.
        batch: "labels" (batch, n), the token that is wanted at each place, -1 where there is none; "weights" (batch, n)
            or (batch,), all 1 if absent: 0 for a prompt's tokens and for padding.

    Returns:
        The weighted sum, with the metrics "correct", the weight of the tokens that are the likeliest, "tokens", the
        weight of all; "exact" and "examples": rows whose every token is the likeliest, and all rows that have any.

    Example:
        >>> labels = jnp.array([[1, 2], [3, -1]])
        >>> sums = next_token(jnp.zeros((2, 2, 4)), {"labels": labels})
        >>> float(sums.weight), round(float(sums.total / sums.weight), 4)
        (3.0, 1.3863)
    """
    labels = batch["labels"]
    scores = output if isinstance(output, TokenScores) else scores_of(output, labels)
    weights = jnp.asarray(batch.get("weights", jnp.float32(1)), jnp.float32)
    rows = weights if weights.ndim != 1 else weights[:, None]
    counting = jnp.broadcast_to(rows, labels.shape) * (labels >= 0)
    any_counts = counting.max(axis=1) > 0
    right = jnp.where(counting > 0, scores.right, 1.0).min(axis=1)
    tokens = counting.sum()
    total = jnp.where(counting > 0, counting * scores.nats, 0.0).sum()
    metrics = {
        "correct": (counting * scores.right).sum(),
        "tokens": tokens,
        "exact": jnp.sum(any_counts * right),
        "examples": any_counts.sum().astype(jnp.float32),
    }
    return LossSums(total, tokens, metrics)


def bits_per_byte(nats: float, size: int) -> float:
    """What a text costs: its tokens' nats in bits, divided by its length in bytes of UTF-8.

    Args:
        nats: summed over the text's tokens.
        size: bytes of the text in UTF-8.

    >>> round(bits_per_byte(math.log(2) * 8, 4), 6)
    2.0
    """
    return nats / math.log(2) / size
