"""The decoders that are measured, in Flax with drawn weights, and what their twins in torch are made of.

SmolLM2-135M and a Llama of 1B parameters, by their configs. A batch is rows of tokens without padding, of which the
last half is learnt. Weights are drawn, since only their shapes matter for speed; the torch twins get the same ones, and
a suite compares the logits of both before it measures anything.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.model_twins import check_logits, save_arrays
from experiments.bench.peer import Peer
from experiments.bench.subjects import Subject
from share_jax.models.decoder import Decoder
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.decoder_weights import decoder_names
from share_jax.train.token_losses import next_token
from share_jax.trees import flat, nested


def _llama(vocab: int, d: int, up: int, layers: int, heads: int, key_heads: int, theta: float) -> DecoderConfig:
    width = d // heads
    sizes = (vocab, d, up, layers, heads, key_heads, width, 8192)
    return DecoderConfig("llama", *sizes, 1e-5, theta, tie_word_embeddings=True, query_scale=width**-0.5)


CONFIGS: Mapping[str, DecoderConfig] = {
    "tiny": _llama(64, 16, 32, 2, 4, 2, 1e4),
    "smollm2-135m": _llama(49_152, 576, 1536, 30, 9, 3, 1e5),
    "llama-1b": _llama(128_256, 2048, 8192, 16, 32, 8, 5e5),
}
"""The forms by name. The Llama's rotary frequencies are not divided, which costs nothing at run time."""

ALL_LAYERS, LAST_TEN = "all layers", "last ten layers"
AGREE = 2e-3
"""How far the logits of the two runtimes may be apart in float32, at logits of about 1."""


def first_adapted(config: DecoderConfig, targets: str) -> int:
    """The first layer whose kernels are adapted.

    >>> first_adapted(CONFIGS["smollm2-135m"], LAST_TEN), first_adapted(CONFIGS["tiny"], LAST_TEN)
    (20, 1)
    """
    layers = config.num_hidden_layers
    return 0 if targets == ALL_LAYERS else layers - max(1, min(10, layers // 3))


def pattern_of(config: DecoderConfig, targets: str) -> str:
    """All kernels of the layers from the first adapted one on, as a pattern over paths."""
    layers = range(first_adapted(config, targets), config.num_hidden_layers)
    return rf"layer_({'|'.join(map(str, layers))})/.*/kernel"


@cache
def drawn_params(name: str, dtype: str) -> dict[str, Any]:
    """The parameters of a form: kernels that keep the size of what they take, and scales of 1."""
    rng, out = np.random.default_rng(0), {}
    for leaf in decoder_names(CONFIGS[name]).values():
        if len(leaf.stored) == 1:
            out[leaf.place] = jnp.ones(leaf.shape, dtype)
        else:
            drawn = rng.standard_normal(leaf.shape, np.float32) * np.float32(leaf.stored[-1] ** -0.5)
            out[leaf.place] = jnp.asarray(drawn, dtype)
    return nested(out)


@cache
def decoder(name: str, batch: int, tokens: int, dtype: str = "float32") -> Subject:
    """A form with a batch of rows of tokens, of which the last half is learnt; parameters are of the compute type."""
    config = CONFIGS[name]
    ids, targets = np.random.default_rng(1).integers(0, config.vocab_size, (2, batch, tokens)).astype(np.int32)
    learnt = np.tile(np.arange(tokens - tokens // 2, tokens, dtype=np.int32), (batch, 1))
    wanted = jnp.asarray(targets[:, : learnt.shape[1]])
    inputs = {
        "input_ids": jnp.asarray(ids),
        "attention_mask": jnp.ones((batch, tokens), jnp.int32),
        "columns": jnp.asarray(learnt),
        "targets": wanted,
    }
    model = Decoder(config, jnp.dtype(dtype))
    title = f"{name}, {batch} x {tokens}"
    return Subject(title, model, drawn_params(name, dtype), inputs, wanted, twin_spec(config), (), next_token)


def twin_spec(config: DecoderConfig) -> dict[str, Any]:
    """What transformers' `LlamaConfig` takes of the form."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta",
        "tie_word_embeddings",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}


def decoder_files(subject: Subject, folder: Path, *, drawn: bool = False) -> dict[str, Any]:
    """Writes what the peer builds the decoder's twin from; the files' paths, and the sizes.

    Args:
        subject: the decoder.
        folder: for the files.
        drawn: whether the peer draws weights of its own, as of a decoder whose weights take long to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, inputs = folder / "weights.safetensors", folder / "inputs.safetensors"
    arrays = {name: np.asarray(subject.inputs[name], np.int64) for name in ("input_ids", "targets")}
    save_arrays(arrays, inputs)
    if drawn:
        return {"spec": subject.twin, "inputs": str(inputs)}
    model: Any = subject.model
    leaves, table = flat(subject.params), decoder_names(model.config)
    stored = {name: leaf.to_stored(np.asarray(leaves[leaf.place], np.float32)) for name, leaf in table.items()}
    save_arrays(stored, weights)
    return {"spec": subject.twin, "weights": str(weights), "inputs": str(inputs)}


def agreed_decoder(subject: Subject, peer: Peer, folder: Path) -> dict[str, Any]:
    """The files of a twin whose logits are those of the decoder.

    Raises:
        PeerError: they are not; the two would not be the same model.
    """
    files = decoder_files(subject, folder)
    theirs = np.array(peer.make("twin", "decoder logits", files=files)["logits"])
    peer.drop(["twin"])
    row = subject.inputs["input_ids"][:1]
    logits = np.asarray(jax.jit(subject.model.apply)(subject.base, row, jnp.ones_like(row)), np.float32)
    check_logits(subject.name, logits[0, -len(theirs) :, : theirs.shape[1]], theirs, AGREE)
    return files
