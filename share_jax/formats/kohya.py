"""Files of kohya's sd-scripts and of LyCORIS' plain LoRA (LoCon): `lora_unet_.._.lora_down.weight` and their like.

Every module has its own `.alpha`, a number; the update is alpha / r * up x down, with `lora_mid` between the two where
there is one. Without an alpha, or with one of 0, the scale is 1. Of Stable Diffusion XL, whose UNet sd-scripts knows
by its original names, names become diffusers', which the library uses for every UNet.

Source: sd-scripts `networks/lora.py`; LyCORIS `lycoris/modules/locon.py`.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from share_jax.errors import FormatError, message
from share_jax.formats import components
from share_jax.formats.adapter_file import Part, Source
from share_jax.formats.kohya_names import flattened, looks_like_kohya, table_of, undone
from share_jax.formats.lora_names import read_pairs
from share_jax.formats.pair_files import PairNames, alpha_tensor, save_pairs
from share_jax.formats.pairs import Place, names_in, place_of, source_of_pairs
from share_jax.formats.saving import refuse
from share_jax.formats.unet_names import is_sdxl, to_diffusers, to_original
from share_jax.storage.untrusted import shown

_PAIRS = PairNames("kohya", "lora_down.weight", "lora_up.weight", None)
_ENCODERS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}


def is_kohya(path: str | os.PathLike) -> bool:
    """Whether this is a file of kohya's, or a folder with one such file of tensors."""
    return looks_like_kohya(names_in(place_of(path)))


def open_kohya(path: str | os.PathLike, modules: Iterable[str] | None = None) -> list[Source]:
    """The task of a file.

    Args:
        path: the file, or a folder with this one file of tensors.
        modules: the names of the model's modules; when None, names are undone by the words of known models.

    Raises:
        FormatError: the file is damaged, of another kind, or a name cannot be undone.
    """
    place = place_of(path)
    if place is None:
        raise FormatError(message(f"file {shown(path)}", got="none", expected="one of kohya's", fix="check the path"))
    table = None if modules is None else table_of(modules)
    return [source_of_pairs(place, read_pairs(place, _modules_by(place, table), zero_is_rank=True))]


def _modules_by(place: Place, table: Mapping[str, tuple[str, ...]] | None) -> Callable[[str], str]:
    def module_of(name: str) -> str:
        component, module = undone(name, place.label, table)
        if component == "unet_original" or (component == "unet" and table is not None):
            known = to_diffusers(module)
            if component == "unet_original" and known is None:
                raise FormatError(
                    message(f"{place.label} {shown(name)}", got=module, expected="a layer of the UNet",
                         fix="pass --modules FILE, the names of the model's modules")
                )  # fmt: skip
            return f"unet.{known or module}"
        return f"{component}.{module}"

    return module_of


def save_kohya(folder: Path, source: Source, dtype: str | None = None) -> dict[Part, str]:
    """Writes a task as one file of kohya's, `NAME.safetensors`; returns what each of its parts has become.

    Args:
        folder: an existing, empty folder.
        source: the task; its modules' names begin with a component.
        dtype: of the factors; their own when None.

    Raises:
        InputError: the format cannot hold it; the message says why.
    """
    for module, layer in source.layers.items():
        if layer.scale == 0:
            got = f"alpha 0 at {shown(module)}, which sd-scripts takes for the rank"
            raise refuse(source, "kohya", got, "another alpha: this pair changes nothing")
    return save_pairs(folder, source, _PAIRS, kohya_names(source), alpha_tensor, dtype)


def kohya_names(source: Source) -> dict[str, str]:
    """kohya's name of every module.

    Raises:
        InputError: a module is of no component.
    """
    split = {module: components.split(module) for module in source.layers}
    unet = [name for component, name in split.values() if component == "unet"]
    encoders = {component for component, _ in split.values() if component.startswith("text_encoder")}
    sdxl = is_sdxl(unet) or (is_sdxl(unet) is None and "text_encoder_2" in encoders)
    out = {}
    for module, (component, name) in split.items():
        if component == "unet" and sdxl:
            name = to_original(name, sdxl=True) or name
        if component in components.MAIN:
            prefix = "lora_unet_"
        elif component.startswith("text_encoder"):
            prefix = "lora_te_" if encoders == {"text_encoder"} and not sdxl and unet else _ENCODERS[component]
        else:
            got = f"{shown(module)}, of no known part of an image model"
            raise refuse(source, "kohya", got, "names that begin with unet., transformer., ... (--component)")
        out[module] = prefix + flattened(name)
    return out
