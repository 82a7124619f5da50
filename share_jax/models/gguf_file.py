"""GGUF files, as llama.cpp writes them: metadata, tensors in float32, and the form of a decoder that they describe.

Sources: the `gguf` package of llama.cpp, which dequantises; its `convert_hf_to_gguf.py` for what conversion
does to tensors: in files of the architecture "llama" the rows of query and key are in another order (pairs of a
rotation lie beside each other), and Gemma's norms hold 1 + scale.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.flax_names import Leaf
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.decoder_weights import decoder_names
from share_jax.models.gguf_header import TensorPlace, read_header
from share_jax.models.weights import ReadWhenAsked, params_of

_FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
"""Families by llama.cpp's names of architectures; Mistral is a llama there."""
_FIX = "take a GGUF file of a covered model, or the Hugging Face folder"
_GEMMA_27B = 62
"""Layers of the one Gemma 3 whose queries are scaled by the width of d / heads, as in llama.cpp."""


@dataclass(frozen=True, eq=False)
class GgufFile:
    """A GGUF file that has been opened.

    Attributes:
        path: of the file.
        metadata: values by key, such as "general.architecture".
        tensors: by name, each dequantised to float32 when it is asked for, axes as the Hugging Face hub has them.
        shapes: of the tensors.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]


def read_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """Opens a GGUF file; needs `pip install "share_jax[models]"`.

    Raises:
        FormatError: it cannot be read, or is a part of a split file.
    """
    path = Path(path)
    metadata, places = read_header(path)
    if metadata.get("split.count", 1) > 1:
        got, fix = f"one of {metadata['split.count']} parts", "join them with llama-gguf-split --merge"
        raise FormatError(message(str(path), got=got, expected="one whole file", fix=fix))
    tensors = ReadWhenAsked({name: partial(_values, path, name, place) for name, place in places.items()})
    return GgufFile(path, metadata, tensors, {name: place.shape for name, place in places.items()})


def _values(path: Path, name: str, place: TensorPlace) -> np.ndarray:
    """A tensor in float32."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        kind = GGMLQuantizationType(place.kind)
        block, size = GGML_QUANT_SIZES[kind]
        width = place.shape[-1] // block * size
        raw = np.memmap(path, np.uint8, "r", place.start, (*place.shape[:-1], width))
        return np.asarray(dequantize(raw, kind), np.float32).reshape(place.shape)
    except (NotImplementedError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        what, fix = f"{path} {name}", "fetch the file again, or take one that is quantised in another way"
        raise FormatError(message(what, got=reason, expected="a type that gguf reads", fix=fix)) from error


def gguf_config(file: GgufFile) -> DecoderConfig:
    """The form that a file's metadata and tensors describe.

    Raises:
        FormatError: the architecture is not covered, or a number is missing or wrong.
    """
    try:
        return _config(file)
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(f"{file.path} {error}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        fix = "convert the model again"
        raise FormatError(message(str(file.path), got=error, expected="a decoder's sizes", fix=fix)) from error


def _config(file: GgufFile) -> DecoderConfig:
    meta, where = file.metadata, str(file.path)
    arch = meta.get("general.architecture")
    if arch not in _FAMILIES:
        expected = f"one of {', '.join(_FAMILIES)}"
        raise FormatError(message(f"{where} general.architecture", got=repr(arch), expected=expected, fix=_FIX))
    gemma, names = arch == "gemma3", set(file.tensors)
    needed = {
        "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
        "max_position_embeddings": "context_length", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }  # fmt: skip
    if missing := [key for key in needed.values() if f"{arch}.{key}" not in meta]:
        got = f"no {arch}.{missing[0]}"
        raise FormatError(message(where, got=got, expected="a decoder's sizes", fix="convert the model again"))
    sizes = {name: meta[f"{arch}.{key}"] for name, key in needed.items()}
    layers, heads, d = sizes["num_hidden_layers"], sizes["num_attention_heads"], sizes["hidden_size"]
    head_dim = meta.get(f"{arch}.attention.key_length", d // heads)
    divisors = file.tensors["rope_freqs.weight"].ravel().tolist() if "rope_freqs.weight" in names else None
    if (turned := meta.get(f"{arch}.rope.dimension_count", head_dim)) != head_dim:
        what = f"{where} {arch}.rope.dimension_count"
        raise FormatError(message(what, got=turned, expected=f"{head_dim}, all of a head", fix=_FIX))
    if factor := _linear_factor(meta, arch, where):
        divisors = [factor] * (head_dim // 2)
    window = meta.get(f"{arch}.attention.sliding_window")
    pattern = meta.get(f"{arch}.attention.sliding_window_pattern", 6 if gemma else 0)
    if isinstance(pattern, list):
        windows = tuple(window if local else None for local in pattern)
    else:
        windows = tuple(window if not pattern or (i + 1) % pattern else None for i in range(layers))
    usual = 1_000_000.0 if gemma else 10_000.0
    return DecoderConfig(
        family=_FAMILIES[arch],
        vocab_size=_rows(file, "token_embd.weight"),
        **sizes,
        num_key_value_heads=meta.get(f"{arch}.attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=meta.get(f"{arch}.rope.freq_base", usual),
        rope_divisors=None if divisors is None else tuple(divisors),
        windows=windows if window else None,
        local_rope_theta=meta.get(f"{arch}.rope.freq_base_swa", 10_000.0) if gemma else None,
        tie_word_embeddings="output.weight" not in names,
        qkv_bias="blk.0.attn_q.bias" in names,
        out_bias="blk.0.attn_output.bias" in names,
        mlp_bias="blk.0.ffn_gate.bias" in names,
        head_norms="blk.0.attn_q_norm.weight" in names,
        norms_around=gemma,
        scale_plus_one=gemma,
        activation="gelu_tanh" if gemma else "silu",
        embedding_scale=d**0.5 if gemma else 1.0,
        query_scale=(d // heads if gemma and layers == _GEMMA_27B else head_dim) ** -0.5,
        attention_softcap=meta.get(f"{arch}.attn_logit_softcapping") or None,
        logit_softcap=meta.get(f"{arch}.final_logit_softcapping") or None,
    )


def _linear_factor(meta: Mapping[str, Any], arch: str, where: str) -> float | None:
    """What positions are divided by; None where by nothing. Scaling is linear unless the file says otherwise."""
    key = f"{arch}.rope.scaling.factor"
    factor = meta.get(key, meta.get(f"{arch}.rope.scale_linear"))
    kind = meta.get(f"{arch}.rope.scaling.type", "linear" if factor else "none")
    if kind not in ("none", "linear"):
        what = f"{where} {arch}.rope.scaling.type"
        raise FormatError(message(what, got=repr(kind), expected="none or linear", fix=_FIX))
    if kind == "none" or (not factor and f"{arch}.rope.scaling.type" not in meta):
        return None
    if not factor:
        raise FormatError(message(where, got=f"no {key}", expected="the factor of linear scaling", fix=_FIX))
    return float(factor)


def _rows(file: GgufFile, name: str) -> int:
    if name not in file.shapes:
        raise FormatError(message(str(file.path), got=f"no {name}", expected="an embedding", fix=_FIX))
    return file.shapes[name][0]


_PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def gguf_names(config: DecoderConfig) -> dict[str, Leaf]:
    """The table of `decoder_names` by the names of llama.cpp.

    >>> names = gguf_names(DecoderConfig("llama", 50, 8, 16, 2, 2, 1, 4, 32))
    >>> names["blk.1.ffn_norm.weight"].place
    'layer_1/mlp_norm/scale'
    """
    parts = {**_PARTS, "post_attention_layernorm": "post_attention_norm" if config.norms_around else "ffn_norm"}
    ends = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    out = {}
    for name, leaf in decoder_names(config).items():
        if name in ends:
            out[ends[name]] = leaf
            continue
        _, _, index, *part, kind = name.split(".")
        out[f"blk.{index}.{parts['.'.join(part)]}.{kind}"] = leaf
    return out


def halves_apart(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key kernel, or its bias, in the order in which the Hugging Face hub has them.

    In files of llamas the two entries of a rotated pair lie beside each other; on the hub all first ones come first.

    >>> halves_apart(np.asarray([0, 2, 1, 3, 4, 6, 5, 7]), 2).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    rest = tensor.shape[1:]
    return tensor.reshape(heads, -1, 2, *rest).swapaxes(1, 2).reshape(tensor.shape)


def load_gguf(file: GgufFile, dtype: DTypeLike = "float32") -> tuple[DecoderConfig, dict]:
    """The config, and the params of `Decoder`.

    Strict: every parameter must be there with its shape, and nothing else may be, but for the divisors of rotary
    frequencies, which the config holds.

    Args:
        file: from `read_gguf`.
        dtype: of the params.

    Raises:
        FormatError: the model is not covered; a tensor is missing, unexpected or wrong-shaped.
    """
    config = gguf_config(file)
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for name in file.tensors:
        readers[name] = partial(_as_on_the_hub, file, name, config)
    where, kind = str(file.path), f"a {config.family} of {config.num_hidden_layers} layers"
    return config, params_of(gguf_names(config), ReadWhenAsked(readers), where, kind, ("rope_freqs.weight",), dtype)


def _as_on_the_hub(file: GgufFile, name: str, config: DecoderConfig) -> np.ndarray:
    tensor, part = file.tensors[name], name.split(".")[-2] if "." in name else name
    if config.scale_plus_one and part.endswith("norm"):
        return tensor - 1.0
    if file.metadata["general.architecture"] == "llama" and part in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
        fits = tensor.shape[0] % (2 * heads) == 0  # if not, its shape is refused as it is
        return halves_apart(tensor, heads) if fits else tensor
    return tensor
