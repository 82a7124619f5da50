"""The two compiled programs behind `generate`: prompts into a cache, and tokens out of it, as one loop.

Both take slots that have been read already, one per row, so neither knows how many tasks there are.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from share_jax.annotations import Bool, Float, Int
from share_jax.bank.slots import TaskSlots
from share_jax.models.kv_cache import Cache, with_room
from share_jax.models.sampling import Sampling, drawn, likeliest
from share_jax.typing import Array, PRNGKey, Tree


@partial(jax.jit, static_argnames=("adapted", "room"))
def prefill(
    adapted: Any,
    variables: Tree,
    slots: TaskSlots,
    input_ids: Int[Array, "batch n"],
    attention_mask: Int[Array, "batch n"],
    room: int,
) -> tuple[Float[Array, "batch vocab"], Cache]:
    """Logits of each row's first new token, and a cache with room for `room` tokens.

    Args:
        adapted: a `Decoder` that has been adapted.
        variables: "params" and "shared".
        slots: one task's leaves, or each row's.
        input_ids: prompts, padded on the left.
        attention_mask: 1 for tokens, 0 for padding.
        room: places behind the prompts.
    """
    logits, cache = adapted.apply_slot(variables, slots, input_ids, attention_mask, method="prefill")
    return logits, with_room(cache, room)


@partial(jax.jit, static_argnames=("adapted", "most"), donate_argnames=("cache",))
def write(
    adapted: Any,
    variables: Tree,
    slots: TaskSlots,
    logits: Float[Array, "batch vocab"],
    cache: Cache,
    starts: Int[Array, " batch"],
    limit: Int[Array, ""],
    ends: Int[Array, " stops"],
    how: Sampling | None,
    keys: PRNGKey,
    most: int,
) -> tuple[Int[Array, "batch most"], Int[Array, " batch"], Bool[Array, " batch"], Cache]:
    """Tokens until every row has met one of `ends`, or has `limit` of them.

    Args:
        adapted: as for `prefill`.
        variables: the same.
        slots: the same.
        logits: from `prefill`.
        cache: from `prefill`, with room for `most` tokens; donated.
        starts: of each row the place of its first token.
        limit: at most `most`.
        ends: ids that end a row.
        how: how tokens are drawn; None takes the likeliest.
        keys: one for each row.
        most: places for new tokens.

    Returns:
        (tokens, how many of them are a row's own, whether it met an end, the cache as it was left)
    """
    batch, first = logits.shape[0], cache[0].key.shape[2] - most

    def choose(logits: Float[Array, "batch vocab"], step: Int[Array, ""]) -> Int[Array, " batch"]:
        if how is None:
            return likeliest(logits)
        return drawn(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step), logits, how)

    def noted(state: tuple, logits: Float[Array, "batch vocab"], cache: Cache) -> tuple:
        step, _, done, lengths, tokens, _ = state
        token = choose(logits, step)
        done = done | (token[:, None] == ends[None, :]).any(axis=1)
        tokens = lax.dynamic_update_slice(tokens, token[:, None], (0, step))
        return step + 1, token, done, lengths + (~done).astype(jnp.int32), tokens, cache

    def goes_on(state: tuple) -> Bool[Array, ""]:
        step, _, done, *_ = state
        return (step < limit) & ~done.all()

    def next_token(state: tuple) -> tuple:
        step, token, _, _, _, cache = state
        place = first + step - 1
        logits, cache = adapted.apply_slot(variables, slots, token, cache, place, starts, method="decode")
        return noted(state, logits, cache)

    nothing = jnp.zeros((batch,), jnp.int32)
    empty = (jnp.int32(0), nothing, jnp.zeros((batch,), bool), nothing, jnp.zeros((batch, most), jnp.int32), cache)
    _, _, done, lengths, tokens, cache = lax.while_loop(goes_on, next_token, noted(empty, logits, cache))
    return tokens, lengths, done, cache


@partial(jax.jit, static_argnames=("model",))
def features(
    model: Any, variables: Tree, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"]
) -> Float[Array, "batch d"]:
    """The frozen model's features, of prompts padded on the right."""
    return model.apply(variables, input_ids, attention_mask, method="features")
