"""LoRA files of diffusers: `pytorch_lora_weights.safetensors` or `.bin`, for one or several parts of a pipeline.

Names begin with the component. Pairs are PEFT's (`lora_A`), older ones (`lora.down`, `lora_linear_layer.down`,
`processor.to_q_lora.down`), or both in one file. Alpha is a tensor beside them, or stands in `lora_adapter_metadata`,
PEFT's configuration of each component; with neither the scale is 1.

Source: diffusers `loaders/lora_base.py`, `utils/state_dict_utils.py`, `utils/peft_utils.py`.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats import components
from share_jax.formats.adapter_file import Layer, Part, Source
from share_jax.formats.export import new_config
from share_jax.formats.lora_names import has_pairs, read_pairs
from share_jax.formats.pair_layouts import EMBEDDING, expert_of, tensors_of_factors
from share_jax.formats.pairs import Pair, Place, names_in, place_of, source_of_pairs
from share_jax.formats.peft_config import LoraSettings, parse_config
from share_jax.formats.saving import CONFIGS as METADATA
from share_jax.formats.saving import as_dtype, metadata_for, refuse
from share_jax.formats.tensor_files import open_tensors
from share_jax.storage.safetensors_file import RawTensor, raw_of, write_tensors
from share_jax.storage.untrusted import parse_json, shown

WEIGHTS = "pytorch_lora_weights.safetensors"
USUAL = (WEIGHTS, "pytorch_lora_weights.bin")

_BEGINS = tuple(f"{name}." for name in components.COMPONENTS if name != "diffusion_model")
_CONFIG_KEYS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "lora_bias")
_ENCODER = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "out_proj"}


def is_diffusers(path: str | os.PathLike) -> bool:
    """Whether this is a LoRA file of diffusers, or a folder with one."""
    names = names_in(place_of(path, USUAL))
    return any(name.startswith(_BEGINS) for name in names) and has_pairs(names)


def open_diffusers(path: str | os.PathLike) -> list[Source]:
    """The task of a file.

    Raises:
        FormatError: the file is damaged, or of another kind.
    """
    place = place_of(path, USUAL)
    if place is None:
        raise FormatError(message(f"file {shown(path)}", got="none", expected=WEIGHTS, fix="check the path"))

    with open_tensors(place.folder, place.name) as file:
        infos, metadata = dict(file.tensors), dict(file.metadata)

    def module_of(name: str) -> str:
        if not name.startswith(_BEGINS):
            raise FormatError(
                message(f"{place.label} {shown(name)}", got="another beginning", expected=", ".join(_BEGINS),
                     fix="leave it out of the adapter")
            )  # fmt: skip
        return _plain(name, old=f"{name}_lora.down.weight" in infos)

    pairs = read_pairs(place, module_of)
    settings = _settings_of(metadata, pairs, place)
    scaled = {
        module: _scaled(module, pair, infos[pair.a].shape[0], settings, place) if infos[pair.a].shape else pair
        for module, pair in pairs.items()
    }
    return [source_of_pairs(place, scaled)]


def _plain(name: str, *, old: bool) -> str:
    """A module's name without what older files put into it.

    Args:
        name: as the file has it, without what the tensor is of its pair.
        old: whether the pair's names are of the oldest kind, `to_out_lora.down`; then `to_out` is a list of modules.

    >>> _plain("unet.mid_block.attn1.processor.to_out", old=True), _plain("transformer.blocks.0.to_out", old=False)
    ('unet.mid_block.attn1.to_out.0', 'transformer.blocks.0.to_out')
    >>> _plain("text_encoder.layers.0.self_attn.to_q", old=True)
    'text_encoder.layers.0.self_attn.q_proj'
    """
    name = name.replace(".processor.", ".")
    if old:
        name = re.sub(r"\.to_out$", ".to_out.0", name)
    if name.startswith("text_encoder"):
        for end, new in _ENCODER.items():
            if name.endswith(f"self_attn.{end}"):
                return name.removesuffix(end) + new
    return name


def _settings_of(metadata: Mapping[str, str], modules: Iterable[str], place: Place) -> dict[str, LoraSettings]:
    """What the metadata says of each component."""
    if METADATA not in metadata:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in parse_json(metadata[METADATA].encode(), f"{place.label} {METADATA}").items():
        component, _, field = key.partition(".")
        found.setdefault(component, {})[field] = value
    names: dict[str, list[str]] = {}
    for module in modules:
        component, name = components.split(module)
        names.setdefault(component, []).append(name)
    out = {}
    for component, config in found.items():
        whole = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, **config}
        out[component] = parse_config(whole, f"{place.label} {METADATA}:").of_modules(names.get(component, ()))
    return out


def _scaled(module: str, pair: Pair, rank: int, settings: Mapping[str, LoraSettings], place: Place) -> Pair:
    component, name = components.split(module)
    own = settings.get(component)
    if own is None:
        return pair
    if pair.alpha is not None:
        raise FormatError(
            message(f"{place.label} {shown(module)}", got=f"an alpha in {METADATA} and one beside it",
                 expected="one of the two", fix="save the adapter again")
        )  # fmt: skip
    if rank != own.rank_of(name):
        raise FormatError(
            message(f"{place.label} {shown(module)} rank", got=f"{rank} in the file",
                 expected=f"{own.rank_of(name)} as {METADATA} says", fix="save the adapter again")
        )  # fmt: skip
    for flag, said, there in (("use_dora", own.use_dora, pair.magnitude), ("lora_bias", own.lora_bias, pair.bias)):
        if said != (there is not None):
            got = f"{flag} {said} in {METADATA}, but {'nothing' if there is None else 'a tensor'} for it"
            raise FormatError(
                message(
                    f"{place.label} {shown(module)}", got=got, expected="the two to agree", fix="save the adapter again"
                )
            )
    return replace(pair, scale=own.scale_of(name)) if own.use_rslora else replace(pair, alpha=own.alpha_of(name))


def loads_whole(path: str | os.PathLike) -> bool:
    """Whether diffusers itself loads every pair of a file, each with its alpha; if not, it is better written anew.

    Of each component it takes all names for PEFT's if the first is. It passes over alphas beside its own names, and
    asks for `target_modules` of each component where there are metadata.

    Source: diffusers `loaders/peft.py` `load_lora_adapter`.
    """
    place = place_of(path, USUAL)
    if place is None:
        return False
    with open_tensors(place.folder, place.name) as file:
        names, metadata = list(file.tensors), dict(file.metadata)
    if any(name.endswith(".alpha") for name in names):
        return False
    for begin in _BEGINS:
        own = [name for name in names if name.startswith(begin)]
        of_peft = {name for name in own if re.search(r"\.lora_(?:A|B|magnitude_vector)\b", name)}
        if own and len(of_peft) < len(own) and {own[0], min(own)} & of_peft:  # either may come first
            return False
        if own and METADATA in metadata:
            configs = parse_json(metadata[METADATA].encode(), f"{place.label} {METADATA}")
            if not configs.get(f"{begin}target_modules"):
                return False
    return True


def save_diffusers(folder: Path, source: Source, dtype: str | None = None) -> dict[Part, str]:
    """Writes a task as diffusers' file; returns what each of its parts has become.

    Args:
        folder: an existing, empty folder.
        source: the task; its modules' names begin with a component.
        dtype: of the factors; their own when None.

    Raises:
        InputError: diffusers cannot hold it; the message says why.
    """
    names = {module: _name_for(source, module) for module in source.layers}
    tensors: dict[str, RawTensor] = {}
    written: dict[Part, str] = {}
    needed = any(layer.scale != 1 for layer in source.layers.values()) or bool(source.extra_names)
    for module, pair in source.read_factors(None).items():
        form = source.layers[module].form
        if expert_of(form) or form == EMBEDDING:
            raise refuse(source, "diffusers", f"{form} at {shown(module)}", "linear layers and convolutions")
        for role, end, values in zip(("lora_a", "lora_b"), "AB", tensors_of_factors(*pair, form), strict=True):
            key = written[Part(role, module)] = f"{names[module]}.lora_{end}.weight"
            tensors[key] = raw_of(np.ascontiguousarray(as_dtype(values, dtype, module)))
        written[Part("alpha", module)] = f"metadata {METADATA}" if needed else "scale 1, which needs none"
    for kept, raw in source.extras().items():
        part = source.companions.get(kept)
        if part is None:
            raise refuse(source, "diffusers", f"tensor {shown(kept)}", "pairs, magnitudes and biases of lora_B")
        end = "lora_B.bias" if part.role == "bias" else "lora_magnitude_vector"
        key = written[part] = f"{names[part.module]}.{end}"
        tensors[key] = raw
    metadata = metadata_for(source, "pt")
    if needed:
        metadata[METADATA] = json.dumps(_metadata_for(source, names), indent=2, sort_keys=True)
    write_tensors(folder / WEIGHTS, tensors, metadata)
    return written


def _name_for(source: Source, module: str) -> str:
    component, name = components.split(module)
    if component == "diffusion_model" and name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
        return f"transformer.{name}"
    if component == "diffusion_model":
        got = f"{shown(module)}, by the model's original names"
        raise refuse(source, "diffusers", got, "diffusers' names, where q, k and v are layers of their own")
    if not component:
        raise refuse(source, "diffusers", shown(module), "diffusers' names, with their component (--component)")
    return module


def _metadata_for(source: Source, names: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's configuration of every component, each key with the component before it.

    Names of a text encoder's modules are those that transformers of any version has: it left out `text_model` once.
    """
    parts: dict[str, dict[str, Layer]] = {}
    for module, layer in source.layers.items():
        component, name = components.split(names[module])
        plain = name.removeprefix("text_model.") if component.startswith("text_encoder") else name
        parts.setdefault(component, {})[plain] = layer
    out = {}
    for component, layers in parts.items():
        config = {**new_config(layers, (), None), **{k: bool(source.config.get(k)) for k in ("use_dora", "lora_bias")}}
        out.update({f"{component}.{key}": config[key] for key in _CONFIG_KEYS})
    return out
