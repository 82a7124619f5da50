"""A decoder of text in plain Linen that covers Llama, Mistral, Qwen2, Qwen3 and Gemma 3, by its config.

Kernels keep one path per projection, so that patterns over paths read naturally: `embed/embedding` (vocabulary, d),
`layer_3/attention/query/kernel` (d, heads, head_dim), `layer_3/attention/key/kernel` (d, key heads, head_dim), `value`
alike, `layer_3/attention/out/kernel` (heads, head_dim, d), `layer_3/mlp/gate/kernel` and `up` (d, up),
`layer_3/mlp/down/kernel` (up, d), and `head/kernel` (d, vocabulary) where the output is not tied to the embedding.
There is no dropout: the base is frozen and the adapters are small.

Sources: Touvron et al. 2023, Llama (arXiv 2302.13971): norms before the sublayers, SwiGLU, rotary positions; Jiang et
al. 2023, Mistral 7B (arXiv 2310.06825): windows; Gemma Team 2025, Gemma 3 (arXiv 2503.19786): norms around sublayers,
local and global layers. The numbers are held against transformers in `tests/models/test_decoder.py`.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax

from share_jax.annotations import Bool, Float, Int
from share_jax.errors import InputError, message
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.decoder_layer import DecoderLayer, View, norm_of, picked
from share_jax.models.kv_cache import Cache
from share_jax.models.rotary import angles, inverse_frequencies
from share_jax.models.split_point import START, Cut, Sublayer, check_cut, parts
from share_jax.ops.token_scores import BLOCK, TokenScores, score_in_blocks, scores_of
from share_jax.typing import Array

_MASKED = -1e9


class Decoder(nn.Module):
    """A decoder of text, which can stop before, or start at, any layer.

    An `attention_mask` numbers documents: a token sees itself and those before it of the same number, and positions
    count from 0 in each document. So 1 for tokens and 0 for padding, on either side, is a plain mask; 1, 2, 3 are
    several short texts in one row. Without one, each row is one text.

    What lies below the cut is meant to stay frozen and unadapted. So its output can be computed once per text by
    `prefix`, and given back as `hidden`.

    Attributes:
        config: the form.
        dtype: compute type; logits are float32.
        first_layer: the layer at which a given `hidden` enters, in [0, num_hidden_layers].
        first_sublayer: where in that layer: before its attention, or between that and its "ffn".

    >>> import jax
    >>> config = DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 32)
    >>> model, ids = Decoder(config), jnp.ones((1, 5), jnp.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> model.apply({"params": params}, ids).shape
    (1, 5, 50)
    """

    config: DecoderConfig
    dtype: Dtype = jnp.float32
    first_layer: int = 0
    first_sublayer: Sublayer = "attention"

    def setup(self) -> None:
        """Names the parts `embed`, `layer_0`, `layer_1`, ..., `norm`, and `head` where the output is not tied."""
        c = self.config
        check_cut(self.cut, c.num_hidden_layers)
        self.embed = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype)
        self.layer = [DecoderLayer(c, self.dtype) for _ in range(c.num_hidden_layers)]
        self.norm = norm_of(c, self.dtype)
        if not c.tie_word_embeddings:
            self.head = nn.Dense(c.vocab_size, use_bias=False, dtype=self.dtype)

    @property
    def cut(self) -> Cut:
        """Where `hidden` enters."""
        return Cut(self.first_layer, self.first_sublayer)

    def __call__(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        columns: Int[Array, "batch k"] | None = None,
        targets: Int[Array, "batch k"] | None = None,
        stems: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch k vocab"] | TokenScores:
        """Logits of the next token, from token ids or from the `hidden` that `prefix` returned.

        Args:
            input_ids: token ids.
            attention_mask: each token's document; 0 is padding.
            hidden: instead of `input_ids`.
            columns: of each row the positions whose logits are wanted; all, in order, when None.
            targets: the tokens that follow there, -1 where there is none: then their scores come back, and logits are
                held for a block of positions at a time.
            stems: as of `prefix`: answers to one prompt may stand behind it as documents of its row.

        Raises:
            InputError: not exactly one of `input_ids` and `hidden`.
        """
        states = self.hidden_states(input_ids, attention_mask, hidden, columns, stems)
        return self.project(states) if targets is None else self.scores(states, targets)

    def scores(self, states: Float[Array, "batch k d"], targets: Int[Array, "batch k"]) -> TokenScores:
        """How likely tokens are at states from `hidden_states`; for `share_jax.train.next_token`."""

        def score(model: Decoder, part: Float[Array, "p d"], wanted: Int[Array, " p"]) -> TokenScores:
            return scores_of(model.project(part), wanted)

        kept = nn.remat(score) if targets.size > BLOCK else score
        return score_in_blocks(partial(kept, self), states, targets)

    def hidden_states(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        columns: Int[Array, "batch k"] | None = None,
        stems: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch k d"]:
        """The normalised states of the last layer, which `project` turns into logits.

        Args:
            input_ids: token ids.
            attention_mask: each token's document.
            hidden: instead of `input_ids`.
            columns: of each row the wanted ones, all when None; the last layer computes nothing else but keys and
                values of the others.
            stems: as of `prefix`.
        """
        if (input_ids is None) == (hidden is None):
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "hidden": hidden}
            given = [name for name, value in inputs.items() if value is not None]
            expected = "input_ids or hidden, with or without attention_mask"
            raise InputError(message("model inputs", got=given, expected=expected, fix="pass exactly these"))
        if hidden is not None:
            return self.norm(self.run(hidden, attention_mask, self.cut, columns=columns, stems=stems))
        embedded = self.embedded(jnp.asarray(input_ids))
        return self.norm(self.run(embedded, attention_mask, columns=columns, stems=stems))

    def project(self, states: Float[Array, "*axes d"]) -> Float[Array, "*axes vocab"]:
        """Logits, float32, of states from `hidden_states`; any of them, in any shape."""
        out = self.embed.attend(states) if self.config.tie_word_embeddings else self.head(states)
        out, cap = out.astype(jnp.float32), self.config.logit_softcap
        return out if cap is None else cap * jnp.tanh(out / cap)

    def prefix(
        self,
        input_ids: Int[Array, "batch n"],
        attention_mask: Int[Array, "batch n"] | None = None,
        stems: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch n d"]:
        """Embeddings and what lies below the cut: the `hidden` of `__call__`.

        Args:
            input_ids: token ids.
            attention_mask: each token's document.
            stems: of each row the length of its first document, on which all others of the row go on; no document
                goes on from another when None.
        """
        return self.run(self.embedded(input_ids), attention_mask, last=self.cut, stems=stems)

    def features(
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
    ) -> Float[Array, "batch d"]:
        """One vector for each text, float32: the mean of its tokens' last hidden states, as for a router."""
        states = self.hidden_states(input_ids, attention_mask, hidden).astype(jnp.float32)
        if attention_mask is None:
            return states.mean(axis=1)
        weight = (attention_mask != 0).astype(jnp.float32)[:, :, None]
        return (states * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)

    def prefill(
        self, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"]
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits behind the last column, and what later tokens need of all; prompts end at the last column."""
        x, kept = self.embedded(input_ids), []
        seen = self.views(input_ids.shape[0], input_ids.shape[1], attention_mask)
        for index, layer in enumerate(self.layer):
            x, own = layer.extend(x, seen[self._kind(index)])
            kept.append(own)
        return self.project(self.norm(x[:, -1])), tuple(kept)

    def decode(
        self, tokens: Int[Array, " batch"], cache: Cache, place: Int[Array, ""], starts: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits behind one more token of every row, and the cache with it.

        Args:
            tokens: the tokens.
            cache: with room for them.
            place: where in the cache they go, the same in every row.
            starts: of each row the place of its first token.
        """
        x = self.embedded(tokens[:, None])
        everywhere = jnp.arange(cache[0].key.shape[2])
        own = (everywhere[None] >= starts[:, None])[:, None]
        seen = self._views((place - starts)[:, None], place[None], everywhere, own)
        kept = []
        for index, layer in enumerate(self.layer):
            x, new = layer.extend(x, seen[self._kind(index)], cache[index], place)
            kept.append(new)
        return self.project(self.norm(x[:, 0])), tuple(kept)

    def embedded(self, input_ids: Int[Array, "batch n"]) -> Float[Array, "batch n d"]:
        """Token ids to the input of layer 0."""
        x = self.embed(input_ids)
        scale = self.config.embedding_scale
        return x if scale == 1.0 else x * jnp.asarray(scale, x.dtype)

    def run(
        self,
        hidden: Float[Array, "batch n d"],
        attention_mask: Int[Array, "batch n"] | None = None,
        first: Cut = START,
        last: Cut | None = None,
        columns: Int[Array, "batch k"] | None = None,
        stems: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch k d"]:
        """Runs what lies between two cuts on `hidden`; `last=None` is the end, before the last norm.

        Args:
            hidden: states at the first cut.
            attention_mask: each token's document.
            first: where they enter.
            last: where they leave.
            columns: of each row the wanted ones, all when None.
            stems: as of `prefix`.
        """
        hidden, between = hidden.astype(self.dtype), list(parts(first, last, len(self.layer)))
        seen = self.views(hidden.shape[0], hidden.shape[1], attention_mask, stems)
        for index, part in between[:-1]:
            hidden = self._part(hidden, index, part, seen)
        if not between or (columns is not None and between[-1][1] == "ffn"):
            hidden, columns = hidden if columns is None else picked(hidden, columns), None
        return self._part(hidden, *between[-1], seen, columns) if between else hidden

    def _part(
        self,
        hidden: Float[Array, "batch n d"],
        index: int,
        part: Sublayer | None,
        seen: Sequence[View],
        columns: Int[Array, "batch k"] | None = None,
    ) -> Float[Array, "batch k d"]:
        """A layer, or one of its sublayers."""
        layer, view = self.layer[index], seen[self._kind(index)]
        match part:
            case "attention":
                return layer.attend(hidden, view, columns)
            case "ffn":
                return layer.feed(hidden)
            case _:
                return layer(hidden, view, columns)

    def views(
        self,
        batch: int,
        n: int,
        attention_mask: Int[Array, "batch n"] | None = None,
        stems: Int[Array, " batch"] | None = None,
    ) -> Sequence[View]:
        """What layers know of rows of `n` tokens: one `View` for each window that layers have."""
        columns = jnp.arange(n)
        if attention_mask is None:
            return self._views(columns[None], columns, columns, jnp.ones((1, 1, n), bool))
        before = jnp.concatenate([jnp.full((batch, 1), -1, attention_mask.dtype), attention_mask[:, :-1]], axis=1)
        begins = jnp.where(attention_mask != before, columns[None], 0)
        positions = columns[None] - lax.cummax(begins, axis=1)
        same = attention_mask[:, :, None] == attention_mask[:, None, :]
        if stems is None:
            return self._views(positions, columns, columns, same)
        stem = columns[None] < stems[:, None]
        positions = jnp.where(stem, positions, positions + stems[:, None])
        return self._views(positions, columns, columns, same | stem[:, None, :], positions)

    def _views(
        self,
        positions: Int[Array, "batch n"],
        rows: Int[Array, " n"],
        columns: Int[Array, " m"],
        seen: Bool[Array, "#batch #n m"],
        places: Int[Array, "batch m"] | None = None,
    ) -> Sequence[View]:
        """Of the tokens at `rows`, which see those at `columns` that `seen` lets them, not before their window.

        `places` are the positions of the tokens at `columns`, where they are not as far apart as the columns.
        """
        c, out = self.config, []
        for window in _windows(c):
            local = window is not None and c.local_rope_theta is not None
            theta = c.local_rope_theta if local else c.rope_theta
            frequencies = inverse_frequencies(c.head_dim, theta or c.rope_theta, None if local else c.rope_divisors)
            behind = (rows[:, None] - columns[None, :])[None]
            apart = behind if places is None else positions[:, :, None] - places[:, None, :]
            causal = behind >= 0 if window is None else (behind >= 0) & (apart < window)
            bias = jnp.where(seen & causal, 0.0, _MASKED).astype(jnp.float32)[:, None]
            out.append(View(*angles(positions, frequencies, len(columns)), bias))
        return out

    def _kind(self, layer: int) -> int:
        return _windows(self.config).index(self.config.window(layer))


def _windows(config: DecoderConfig) -> tuple[int | None, ...]:
    """Every window that some layer has, once."""
    return (None,) if config.windows is None else tuple(dict.fromkeys(config.windows))
