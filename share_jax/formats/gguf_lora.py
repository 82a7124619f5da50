"""LoRA files of llama.cpp: one GGUF file with `blk.N.attn_q.weight.lora_a` (r, in) and `.lora_b` (out, r).

One alpha, `adapter.lora.alpha`, serves all pairs; each pair has its own rank. Without an alpha, or with one of 0, the
scale is 1. Names become those of Hugging Face, for architectures whose layers are named as Llama's are. Of some, such
as `llama` itself, the rows of q and k are stored in another order, head by head, as in the base model; how many heads
there are is not in the file, so that such pairs are refused unless the heads are given.

Source: llama.cpp `convert_lora_to_gguf.py`, `convert_hf_to_gguf.py` (`LlamaModel.permute`), `src/llama-adapter.h`
(`get_scale`); `gguf` tensor names.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.gguf_tensors import GgufTensors
from share_jax.formats.pairs import Pair, Place, source_of_pairs
from share_jax.formats.peft_config import MOST
from share_jax.formats.tensor_files import GGUF
from share_jax.storage.untrusted import check_folder, shown

_KERNELS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_PERMUTED = ("llama", "granite", "minicpm", "smollm3")
"""Architectures with such names whose q and k are stored in another order of rows."""
_PLAIN = (
    "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "olmo2", "command-r", "cohere2", "apertus",
    "seed_oss",
)  # fmt: skip
"""Architectures with such names and all rows in Hugging Face's order."""
_NAME = re.compile(r"blk\.([0-9]{1,6})\.([a-z_]+)\.weight\.lora_([ab])")


def is_gguf(path: str | os.PathLike) -> bool:
    """Whether this is a GGUF file, or a folder with one."""
    return _place(path) is not None


def _place(path: str | os.PathLike) -> Place | None:
    given = Path(path)
    if given.is_file():
        return Place(given.parent, given.name) if given.name.endswith(GGUF) else None
    found = sorted(name for name in os.listdir(given) if name.endswith(GGUF)) if given.is_dir() else []
    return Place(given, found[0]) if len(found) == 1 else None


def open_gguf(path: str | os.PathLike, heads: tuple[int, int] | None = None) -> list[Source]:
    """The task of a file.

    Args:
        path: the file, or a folder with one.
        heads: how many heads of queries, and of keys, the base model has; needed where q and k have another order.

    Raises:
        InputError: the package `gguf` is not installed, or the heads do not divide the rows.
        FormatError: the file is damaged, no LoRA, or a tensor's name is not known.
    """
    place = _place(path)
    if place is None:
        check_folder(path, "GGUF adapter")
        raise FormatError(message(f"adapter {shown(path)}", got="no GGUF file", expected="one", fix="check the path"))
    label = place.label
    with GgufTensors(place.folder, place.name) as file:
        kind = (file.fields.get("general.type"), file.fields.get("adapter.type"))
        if kind != ("adapter", "lora"):
            raise FormatError(
                message(
                    label, got=f"a GGUF file of type {shown(kind[0])}", expected="a LoRA adapter", fix="check the path"
                )
            )
        alpha, arch = file.fields.get("adapter.lora.alpha", 0.0), file.fields.get("general.architecture")
        names = list(file.tensors)
    if not isinstance(alpha, float) or not abs(alpha) < MOST:
        raise FormatError(
            message(f"{label} adapter.lora.alpha", got=shown(alpha), expected=f"a float below {MOST:g}",
                 fix="convert the adapter again")
        )  # fmt: skip
    if arch not in (*_PERMUTED, *_PLAIN):
        raise FormatError(
            message(f"{label} general.architecture", got=shown(arch, 60),
                 expected=f"one whose names are known: {', '.join((*_PERMUTED, *_PLAIN))}",
                 fix="convert from the original adapter instead")
        )  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    for key in names:
        match = _NAME.fullmatch(key)
        if match is None or match[2] not in _KERNELS:
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got="a name without a translation",
                     expected=f"blk.N. and {', '.join(_KERNELS)}", fix="convert from the original adapter instead")
            )  # fmt: skip
        found.setdefault(f"model.layers.{match[1]}.{_KERNELS[match[2]]}", {})[match[3]] = key
    half = next((module for module, keys in found.items() if set(keys) != {"a", "b"}), None)
    if half is not None:
        got = shown(", ".join(found[half].values()))
        raise FormatError(message(f"{label} {half}", got=got, expected="lora_a and lora_b", fix="convert it again"))
    pairs = {module: Pair(keys["a"], keys["b"], alpha=alpha or None) for module, keys in found.items()}
    source = source_of_pairs(place, pairs)
    return [_reordered(source, heads) if arch in _PERMUTED else source]


def _reordered(source: Source, heads: tuple[int, int] | None) -> Source:
    """The source with the rows of q and k in the order that Hugging Face has."""
    counts: dict[str, int] = {}
    for module, layer in source.layers.items():
        side = {"q_proj": 0, "k_proj": 1}.get(module.rpartition(".")[2])
        if side is None:
            continue
        if heads is None:
            raise InputError(
                message(f"{source.label} {module}", got="rows in llama.cpp's order, head by head",
                     expected="the base model's numbers of heads", fix="pass --heads QUERIES,KEYS to share-jax convert")
            )  # fmt: skip
        if layer.d_out % (2 * heads[side]):
            expected, fix = f"a divisor of {layer.d_out} / 2", "check the base model's config.json"
            raise InputError(message(f"--heads at {module}", got=heads[side], expected=expected, fix=fix))
        counts[module] = heads[side]

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        read = source.read_factors(chosen)
        return {module: (a, rows_of(b, counts[module]) if module in counts else b) for module, (a, b) in read.items()}

    return replace(source, read_factors=read_factors)


def rows_of(lora_b: np.ndarray, heads: int) -> np.ndarray:
    """`lora_b` (r, d_out) with its columns in Hugging Face's order: both halves of a head one after the other.

    >>> rows_of(np.array([[0, 2, 1, 3]]), 1)
    array([[0, 1, 2, 3]])
    """
    rank, d_out = lora_b.shape
    return lora_b.reshape(rank, heads, d_out // heads // 2, 2).swapaxes(2, 3).reshape(rank, d_out)


def heads_in(text: str) -> tuple[int, int]:
    """The heads of queries and of keys, as `32,8`, or one number for both."""
    numbers = [int(each) for each in text.split(",")]
    if not 1 <= len(numbers) <= 2 or min(numbers) < 1:
        raise ValueError(text)
    return numbers[0], numbers[-1]


heads_in.__name__ = "pair of whole numbers"
