"""Flat trees of JAX's LoRA libraries, saved as safetensors: a leaf's path is its name, with `.` or `/` between keys.

- qwix, tunix, MaxText: `{kernel}_lora_a` (in, r) and `{kernel}_lora_b` (r, out), as `layers.0.attn.q_proj.w_lora_a`.
  Alpha is in the run's configuration alone.
- gemma: `{layer}/lora/a` and `/b`; `flax.nnx.LoRA`: `{layer}.lora_a` and `.lora_b`. There is no alpha: the scale is 1.

Layers that are scanned or stacked become a pair each; `lora_leaves` has the axes. What the leaves do not tell, a user
says to `live_trees`, which takes trees that are in memory, too.

Source: qwix `_src/providers/lora.py`; gemma `gemma/peft/_lora.py`; flax `nnx/nn/lora.py`.
"""

import os

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.lora_leaves import LEAF, each_layer, paired_leaves
from share_jax.formats.pairs import Pair, names_in, place_of, source_of_pairs
from share_jax.formats.tensor_files import open_tensors
from share_jax.storage.untrusted import exists_inside, shown


def is_jax_tree(path: str | os.PathLike) -> bool:
    """Whether this is a file of such leaves, or a folder with one such file of tensors."""
    if exists_inside(path, "adapter_config.json"):
        return False
    names = names_in(place_of(path))
    return any(LEAF.fullmatch(name) for name in names)


def open_jax_tree(path: str | os.PathLike, alpha: float | None = None) -> list[Source]:
    """The task of a file, its modules named by the paths with dots between.

    Args:
        path: the file, or a folder with one.
        alpha: of the run; needed where the library scales by alpha / rank.

    Raises:
        InputError: alpha is needed.
        FormatError: the file is damaged, or a leaf is none of a pair; see `lora_leaves`.
    """
    place = place_of(path)
    if place is None:
        raise FormatError(message(f"file {shown(path)}", got="none", expected="a flat tree", fix="check the path"))
    label = place.label
    with open_tensors(place.folder, place.name) as file:
        leaves = paired_leaves({key: info.shape for key, info in file.tensors.items()}, label)
    scaled = next((each.a for each in leaves.values() if each.of_kernel), None)
    if scaled is not None and alpha is None:
        raise InputError(
            message(f"{label} tensor {shown(scaled)}", got="pairs whose alpha is in the run's configuration",
                 expected="that alpha", fix="pass --alpha to share-jax convert --to peft")
        )  # fmt: skip
    pairs: dict[str, Pair] = {}
    for name, each, index in each_layer(leaves):
        if name in pairs:
            got = f"a second pair for {shown(name)}"
            raise FormatError(message(f"{label} tensor {shown(each.a)}", got=got, expected="one", fix="save it again"))
        pairs[name] = Pair(each.a, each.b, alpha=alpha, flipped=True, index=index)
    return [source_of_pairs(place, pairs)]
