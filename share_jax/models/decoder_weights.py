"""Weights of a decoder: the table of its tensors' names, and folders of the Hugging Face hub.

The table that loads weights also translates the names of PEFT's adapters:
`share_jax.export_peft(..., names=decoder_names(config))`.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jax.typing import DTypeLike

from share_jax.errors import TargetError, message
from share_jax.formats.flax_names import Leaf, dense
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.weights import open_folder, params_of

_LAYER = re.compile(r"layer_(\d+)/")


def decoder_names(config: DecoderConfig) -> dict[str, Leaf]:
    """The tensors' names of the model for causal language modelling, as the Hugging Face hub has them.

    >>> names = decoder_names(DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 32))
    >>> names["model.layers.1.self_attn.k_proj.weight"].place
    'layer_1/attention/key/kernel'
    """
    c, d = config, config.hidden_size
    own, shared = (c.num_attention_heads, c.head_dim), (c.num_key_value_heads, c.head_dim)
    table = (c.vocab_size, d)
    out = {"model.embed_tokens.weight": Leaf(("embed", "embedding"), table, table)}
    for index in range(c.num_hidden_layers):
        old, new = f"model.layers.{index}", f"layer_{index}"
        for name, part, side_in, side_out, bias in (
            ("self_attn.q_proj", ("attention", "query"), (d,), own, c.qkv_bias),
            ("self_attn.k_proj", ("attention", "key"), (d,), shared, c.qkv_bias),
            ("self_attn.v_proj", ("attention", "value"), (d,), shared, c.qkv_bias),
            ("self_attn.o_proj", ("attention", "out"), own, (d,), c.out_bias),
            ("mlp.gate_proj", ("mlp", "gate"), (d,), (c.intermediate_size,), c.mlp_bias),
            ("mlp.up_proj", ("mlp", "up"), (d,), (c.intermediate_size,), c.mlp_bias),
            ("mlp.down_proj", ("mlp", "down"), (c.intermediate_size,), (d,), c.mlp_bias),
        ):
            both = dense((new, *part), f"{old}.{name}", side_in, side_out)
            out |= {key: leaf for key, leaf in both.items() if bias or leaf.path[-1] == "kernel"}
        for name, part in _norms(c).items():
            size = (c.head_dim if "attention" in part else d,)
            out[f"{old}.{name}.weight"] = Leaf((new, *part, "scale"), size, size)
    out["model.norm.weight"] = Leaf(("norm", "scale"), (d,), (d,))
    if not c.tie_word_embeddings:
        out["lm_head.weight"] = dense(("head",), "lm_head", (d,), (c.vocab_size,))["lm_head.weight"]
    return out


def decoder_modules(kernels: Iterable[str]) -> dict[str, str]:
    """The names of linear modules by their paths, of any decoder, for kernels that are adapted.

    Raises:
        TargetError: one is no linear module's.

    >>> decoder_modules(["layer_1/attention/key/kernel", "head/kernel"])
    {'layer_1/attention/key': 'model.layers.1.self_attn.k_proj', 'head': 'lm_head'}
    """
    kernels = list(kernels)
    layers = 1 + max((int(found[1]) for each in kernels if (found := _LAYER.match(each))), default=0)
    table = decoder_names(DecoderConfig("llama", 2, 2, 2, layers, 1, 1, 2, 2))
    names = {leaf.place: name.removesuffix(".weight") for name, leaf in table.items() if leaf.path[-1] == "kernel"}
    names["head/kernel"] = "lm_head"
    for path in kernels:
        if path not in names:
            expected, fix = "a linear module's kernel", "leave it out of the targets"
            raise TargetError(message(f"target {path} for PEFT", got="another parameter", expected=expected, fix=fix))
    return {path.rpartition("/")[0]: names[path] for path in kernels}


def _norms(config: DecoderConfig) -> dict[str, tuple[str, ...]]:
    """A layer's norms by their names; the second norm's name is the second sublayer's, or the first one's output's."""
    heads = {
        "self_attn.q_norm": ("attention", "query_norm"),
        "self_attn.k_norm": ("attention", "key_norm"),
    }
    around = {
        "input_layernorm": ("attention_norm",),
        "post_attention_layernorm": ("attention_post_norm",),
        "pre_feedforward_layernorm": ("mlp_norm",),
        "post_feedforward_layernorm": ("mlp_post_norm",),
    }
    before = {"input_layernorm": ("attention_norm",), "post_attention_layernorm": ("mlp_norm",)}
    return (heads if config.head_norms else {}) | (around if config.norms_around else before)


def load_decoder_folder(folder: str | os.PathLike[str], dtype: DTypeLike = "float32") -> tuple[DecoderConfig, dict]:
    """Reads `config.json` and the safetensors files of a folder into a config and the params of `Decoder`.

    Strict: every parameter must be there with its shape, and nothing else may be, but for rotary frequencies, which
    follow from the config, and an output layer that is tied to the embedding. One that holds other numbers than the
    embedding is not tied to it, whatever the config says.

    Args:
        folder: of the checkpoint.
        dtype: of the params.

    Raises:
        FormatError: a file cannot be read; the model is not covered; a tensor is missing, unexpected, wrong-shaped or
            not of floats.
    """
    folder = Path(folder)
    config = DecoderConfig.from_json(folder / "config.json")
    layers = range(config.num_hidden_layers)
    unused = [f"model.layers.{index}.self_attn.rotary_emb.inv_freq" for index in layers]
    with open_folder(folder) as tensors:
        if config.tie_word_embeddings and _apart(tensors):
            config = replace(config, tie_word_embeddings=False)  # as transformers does
        unused += ["lm_head.weight"] if config.tie_word_embeddings else []
        kind = f"a {config.family} of {config.num_hidden_layers} layers"
        return config, params_of(decoder_names(config), tensors, str(folder), kind, unused, dtype)


def _apart(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the checkpoint has an output layer that is not its embedding."""
    own, tied = "lm_head.weight", "model.embed_tokens.weight"
    return own in tensors and tied in tensors and not np.array_equal(tensors[own], tensors[tied])


def parameters(config: DecoderConfig) -> int:
    """How many numbers the params hold.

    >>> parameters(DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 32, tie_word_embeddings=True))
    1592
    """
    return sum(math.prod(leaf.shape) for leaf in decoder_names(config).values())
