"""A text encoder that can be cut inside a layer, just before its FFN-down product."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from share_jax.models.bert import BertClassifier
from share_jax.models.gelu import exact_gelu
from share_jax.models.split_point import Cut


class BertInside(BertClassifier):
    """A `BertClassifier` cut before the FFN-down product of `first_layer`: the same parameters, other inputs.

    `inner` of what `below` returns may be what `Adapted.project` made of it.
    """

    def below(
        self, input_ids: Int[Array, "batch n"], attention_mask: Int[Array, "batch n"]
    ) -> dict[str, Float[Array, "batch n d"]]:
        """What the layer's second half needs: `inner` goes into FFN-down, `beside` is added to what comes out."""
        cut = Cut(self.first_layer, "ffn")
        beside = self.encoder.run(self.encoder.embed(input_ids), attention_mask, last=cut)
        return {"inner": exact_gelu(self.encoder.layer[self.first_layer].ffn_up(beside)), "beside": beside}

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Int[Array, "batch n"] | None = None,
        attention_mask: Int[Array, "batch n"] | None = None,
        hidden: dict[str, Any] | None = None,
    ) -> Float[Array, "batch classes"]:
        """Logits from token ids, or from the `hidden` that `below` returned."""
        hidden = self.below(input_ids, attention_mask) if hidden is None else hidden  # pyright: ignore[reportArgumentType]
        layer = self.encoder.layer[self.first_layer]
        x = layer.ffn_norm(hidden["beside"] + layer.ffn_down(hidden["inner"]))
        x = self.encoder.run(x, attention_mask, Cut(self.first_layer + 1))  # pyright: ignore[reportArgumentType]
        return self.head(self.pooled(x.astype(jnp.float32), attention_mask))  # pyright: ignore[reportArgumentType]
