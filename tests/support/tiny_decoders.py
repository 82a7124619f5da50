"""The tiny decoders of `tests/data/decoders`, loaded once, and trees for them in which no leaf is zero."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.models.decoder import Decoder
from share_jax.models.decoder_weights import load_decoder_folder

TINY = Path(__file__).parents[1] / "data" / "decoders"
FAMILIES = ("llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3")


@cache
def tiny(family, dtype=jnp.float32, first_layer=0, first_sublayer="attention"):
    """(model, variables, reference)."""
    config, params = load_decoder_folder(TINY / family)
    with np.load(TINY / family / "reference.npz") as stored:
        return Decoder(config, dtype, first_layer, first_sublayer), {"params": params}, dict(stored)


def random_slots(adapted, params, tasks=2):
    """Trees of `adapted.init` with every leaf at random."""
    made = adapted.init(jax.random.key(0), params, tasks)
    leaves, structure = jax.tree.flatten(made)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32) for x in leaves])
