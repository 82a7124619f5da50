"""Files for ComfyUI, as ai-toolkit and others write them: `diffusion_model.` and `text_encoders.` by original names.

Pairs are as PEFT's or kohya's, with `.alpha` or, mostly, without: the scale is then 1. The names of Stable Diffusion's
UNet become diffusers'; of other models they stay, under `diffusion_model.`.

Source: ComfyUI `comfy/lora.py`, `model_lora_keys_unet` and `model_lora_keys_clip`; ai-toolkit
`toolkit/network_mixins.py`.
"""

import os
from pathlib import Path

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats import components
from share_jax.formats.adapter_file import Layer, Part, Source
from share_jax.formats.lora_names import read_pairs
from share_jax.formats.pair_files import PairNames, alpha_tensor, save_pairs
from share_jax.formats.pairs import names_in, place_of, source_of_pairs
from share_jax.formats.saving import refuse
from share_jax.formats.unet_names import is_sdxl, to_diffusers, to_original
from share_jax.storage.untrusted import shown

MODEL = "diffusion_model."
_DIFFUSERS = ("transformer_blocks.", "single_transformer_blocks.")
"""How diffusers' names of a transformer begin, which ComfyUI knows too."""
_PAIRS = PairNames("ComfyUI", "lora_A.weight", "lora_B.weight", "pt")
_ENCODERS = {
    "text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.clip_g.transformer.",
    "text_encoder_3": "text_encoders.t5xxl.transformer.",
}  # fmt: skip


def is_comfy(path: str | os.PathLike) -> bool:
    """Whether this is a file with ComfyUI's names, or a folder with one such file of tensors."""
    return any(name.startswith((MODEL, "text_encoders.")) for name in names_in(place_of(path)))


def open_comfy(path: str | os.PathLike) -> list[Source]:
    """The task of a file.

    Raises:
        FormatError: the file is damaged, or of another kind.
    """
    place = place_of(path)
    if place is None:
        raise FormatError(message(f"file {shown(path)}", got="none", expected="ComfyUI's", fix="check the path"))

    def module_of(name: str) -> str:
        if name.startswith(MODEL):
            known = to_diffusers(name[len(MODEL) :])
            return name if known is None else f"unet.{known}"
        for component, prefix in _ENCODERS.items():
            if name.startswith(prefix):
                return f"{component}.{name[len(prefix) :]}"
        raise FormatError(
            message(f"{place.label} {shown(name)}", got="another beginning",
                 expected=", ".join((MODEL, *_ENCODERS.values())), fix="leave it out of the adapter")
        )  # fmt: skip

    return [source_of_pairs(place, read_pairs(place, module_of))]


def save_comfy(folder: Path, source: Source, dtype: str | None = None) -> dict[Part, str]:
    """Writes a task as one file for ComfyUI, `NAME.safetensors`; returns what each of its parts has become.

    Args:
        folder: an existing, empty folder.
        source: the task; its modules' names begin with a component.
        dtype: of the factors; their own when None.

    Raises:
        InputError: the format cannot hold it; the message says why.
    """
    scaled = any(layer.scale != 1 for layer in source.layers.values())

    def alpha_of(layer: Layer, _: np.dtype) -> np.ndarray | None:
        return alpha_tensor(layer, np.dtype(np.float32)) if scaled else None

    return save_pairs(folder, source, _PAIRS, _names_of(source), alpha_of, dtype)


def _names_of(source: Source) -> dict[str, str]:
    split = {module: components.split(module) for module in source.layers}
    unet = [name for component, name in split.values() if component == "unet"]
    sdxl = is_sdxl(unet)
    if sdxl is None:
        sdxl = any(component == "text_encoder_2" for component, _ in split.values())
    out = {}
    for module, (component, name) in split.items():
        if component == "unet":
            original = to_original(name, sdxl=sdxl)
            if original is None:
                raise refuse(source, "ComfyUI", shown(module), "a layer of Stable Diffusion's UNet")
            out[module] = MODEL + original
        elif component == "diffusion_model" or (component in ("", "transformer") and name.startswith(_DIFFUSERS)):
            out[module] = MODEL + name
        elif component in _ENCODERS:
            out[module] = _ENCODERS[component] + name
        else:
            raise refuse(source, "ComfyUI", shown(module), "names that begin with unet., transformer., text_encoder.")
    return out
