"""Flat trees of JAX's LoRA libraries, saved as safetensors: a leaf's path is its name, with `.` or `/` between keys.

- qwix, tunix, MaxText: `{kernel}_lora_a` (in, r) and `{kernel}_lora_b` (r, out), as `layers.0.attn.q_proj.w_lora_a`.
  Alpha is in the run's configuration alone.
- gemma: `{layer}/lora/a` and `/b`; `flax.nnx.LoRA`: `{layer}.lora_a` and `.lora_b`. There is no alpha: the scale is 1.

A leaf with more than two axes (a kernel with heads, or layers that are scanned) is refused: which axes are which is not
in the file.

Source: qwix `_src/providers/lora.py`; gemma `gemma/peft/_lora.py`; flax `nnx/nn/lora.py`.
"""

import os
import re

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.pairs import Pair, names_in, place_of, source_of_pairs
from share_jax.formats.tensor_files import open_tensors
from share_jax.storage.untrusted import exists_inside, shown

_LEAF = re.compile(r"(.+?)(?:(_lora_)|([./])lora[./]|[./]lora_)([ab])(?:[./](?:value|raw_value))?", re.DOTALL)


def is_jax_tree(path: str | os.PathLike) -> bool:
    """Whether this is a file of such leaves, or a folder with one such file of tensors."""
    if exists_inside(path, "adapter_config.json"):
        return False
    names = names_in(place_of(path))
    return any(_LEAF.fullmatch(name) for name in names)


def open_jax_tree(path: str | os.PathLike, alpha: float | None = None) -> list[Source]:
    """The task of a file, its modules named by the paths with dots between.

    Args:
        path: the file, or a folder with one.
        alpha: of the run; needed where the library scales by alpha / rank.

    Raises:
        InputError: alpha is needed.
        FormatError: the file is damaged, or a leaf is none of a pair of matrices.
    """
    place = place_of(path)
    if place is None:
        raise FormatError(message(f"file {shown(path)}", got="none", expected="a flat tree", fix="check the path"))
    label = place.label
    found: dict[str, dict[str, str]] = {}
    outside = None
    with open_tensors(place.folder, place.name) as file:
        for key, info in file.tensors.items():
            match = _LEAF.fullmatch(key)
            if match is None or len(info.shape) != 2:
                got = "no leaf of a pair" if match is None else f"{len(info.shape)} axes"
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got=got, expected="lora_a (in, r) or lora_b (r, out)",
                         fix="save the pairs alone, one for each layer, as matrices")
                )  # fmt: skip
            outside = outside or (key if match[2] else None)
            module = (
                re.sub(r"\.(?:kernel|w)$", "", match[1].replace("/", ".")) if match[2] else match[1].replace("/", ".")
            )
            if match[4] in found.setdefault(module, {}):
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got=f"a second leaf for {shown(module)}", expected="one",
                         fix="save the tree again")
                )  # fmt: skip
            found[module][match[4]] = key
    if outside is not None and alpha is None:
        raise InputError(
            message(f"{label} tensor {shown(outside)}", got="pairs whose alpha is in the run's configuration",
                 expected="that alpha", fix="pass --alpha to share-jax convert --to peft")
        )  # fmt: skip
    half = next((module for module, keys in found.items() if set(keys) != {"a", "b"}), None)
    if half is not None:
        got = shown(", ".join(found[half].values()))
        raise FormatError(message(f"{label} {shown(half)}", got=got, expected="lora_a and lora_b", fix="save it again"))
    pairs = {module: Pair(keys["a"], keys["b"], alpha=alpha, flipped=True) for module, keys in found.items()}
    return [source_of_pairs(place, pairs)]
