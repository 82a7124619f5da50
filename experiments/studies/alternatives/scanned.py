"""The vision transformer with its layers under `nn.scan`: one traced layer, parameters stacked along a leading axis."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Float

from share_jax.adapted import SHARED, TASKS
from share_jax.models.split_point import START, Cut
from share_jax.models.vit import VitClassifier, VitConfig, VitEncoder, VitLayer
from share_jax.trees import flat, nested
from share_jax.typing import Array


class ScannedLayers(nn.Module):
    """All layers, one after the other, as the body of one loop."""

    config: VitConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """Runs the layers; parameters and adapters lie under `layer`, stacked (layers, ...)."""
        body = nn.scan(
            lambda layer, hidden, _: (layer(hidden), None),
            variable_axes={"params": 0, SHARED: 0, TASKS: 0},
            split_rngs={"params": True},
            length=self.config.num_layers,
        )
        return body(VitLayer(self.config, self.dtype, name="layer"), x, None)[0]


class ScannedEncoder(VitEncoder):
    """The encoder with its layers in one loop; it cannot stop between them."""

    def setup(self) -> None:
        """Names the loop `scanned`, and the other parts as the encoder does."""
        super().setup()
        self.scanned = ScannedLayers(self.config, self.dtype)

    def run(
        self, hidden: Float[Array, "batch n d"], first: Cut = START, last: Cut | None = None
    ) -> Float[Array, "batch n d"]:
        """All layers and the last LayerNorm; none of them where `last` is a cut."""
        hidden = hidden.astype(self.dtype)
        return self.norm(self.scanned(hidden)) if last is None else hidden


class ScannedVit(VitClassifier):
    """The classifier on the scanned encoder."""

    def setup(self) -> None:
        """Names the parts `encoder` and `head`."""
        self.encoder = ScannedEncoder(self.config, self.dtype)
        self.head = nn.Dense(self.num_classes)


LOOP = "scanned/layer"
"""Where the scanned layers lie in the encoder."""


def stacked(tree: Any, layers: int) -> dict[str, Any]:
    """Any tree of the unrolled model as the scanned one's: `layer_3/...` becomes row 3 of `scanned/layer/...`."""
    leaves = flat(tree)
    found = {path: leaf for path, leaf in leaves.items() if not path.startswith("encoder/layer_")}
    for path in leaves:
        if path.startswith("encoder/layer_0/"):
            rest = path.removeprefix("encoder/layer_0/")
            rows = [leaves[f"encoder/layer_{number}/{rest}"] for number in range(layers)]
            found[f"encoder/{LOOP}/{rest}"] = jax.tree.map(lambda *each: jnp.stack(each), *rows)
    return nested(found)
