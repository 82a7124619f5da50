"""Adapter folders of MLX-LM: `adapters.safetensors` and `adapter_config.json`.

A is stored as (in, r) and B as (r, out), DoRA's magnitude as `.m`. One scale, which is absolute, serves all pairs:
the update is `scale * A @ B`, so that alpha is `scale * r`. MLX-LM builds pairs on the last `num_layers` layers, on
the modules that `keys` names in each, all of one rank.

Source: mlx-lm `mlx_lm/tuner/lora.py`, `dora.py` and `utils.py`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats import components
from share_jax.formats.adapter_file import Part, Source
from share_jax.formats.base_model import base_model
from share_jax.formats.pair_layouts import EMBEDDING
from share_jax.formats.pairs import Pair, Place, source_of_pairs
from share_jax.formats.peft_config import is_scale
from share_jax.formats.saving import as_dtype, metadata_for, refuse
from share_jax.storage.atomic_write import write_new
from share_jax.storage.safetensors_file import RawTensor, TensorFile, raw_of, write_tensors
from share_jax.storage.untrusted import check_folder, exists_inside, parse_json, read_json, read_small, shown

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
NUM_LAYERS = "mlx_num_layers"
"""The entry of a task's metadata in which that number of an MLX-LM folder is kept on the way through other formats."""
ALL_LAYERS = -1
"""As such a number."""
DEFAULT_SCALE = 20.0
"""What MLX-LM takes where the configuration gives none."""

_NAME = re.compile(r"(.+)\.(lora_a|lora_b|m)", re.DOTALL)
_LAYER = re.compile(r"(.*?)\blayers\.([0-9]{1,6})\.(.+)")
_ROLES = {"lora_a": "a", "lora_b": "b", "m": "magnitude"}
_SUFFIX = {"lora_a": "lora_a", "lora_b": "lora_b", "magnitude": "m"}


def is_mlx(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like MLX-LM's."""
    if exists_inside(folder, "adapter_model.safetensors") or not os.path.isdir(folder):
        return False
    return exists_inside(folder, WEIGHTS) or "fine_tune_type" in _config_or_nothing(folder)


def open_mlx(folder: str | os.PathLike) -> list[Source]:
    """The task of the folder.

    Raises:
        InputError: there is no such folder.
        FormatError: a file is missing or damaged, or says something that is not supported; it is named.
    """
    path = check_folder(folder, "MLX-LM adapter")
    place = Place(path, WEIGHTS)
    label = place.label
    config = read_json(path, CONFIG)
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise _bad(label, "fine_tune_type", kind, "lora or dora: weights tuned whole are no adapter")
    settings = config.get("lora_parameters") or {}
    if not isinstance(settings, dict):
        raise _bad(label, "lora_parameters", settings, "an object")
    scale = settings.get("scale", DEFAULT_SCALE)
    if not is_scale(scale):
        raise _bad(label, "lora_parameters scale", scale, "a number")
    base = base_model({"base_model_name_or_path": config.get("model")}, f"{label} model")
    with TensorFile(path, WEIGHTS) as file:
        shapes = {key: info.shape for key, info in file.tensors.items()}
    found: dict[str, dict[str, Any]] = {}
    for key, shape in shapes.items():
        match = _NAME.fullmatch(key)
        if match is None:
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got="no part of a LoRA pair", expected="lora_a, lora_b or m",
                     fix="leave it out of the adapter")
            )  # fmt: skip
        if len(shape) > 2:
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got="the stacked pairs of a layer of experts",
                     expected="pairs of single layers: PEFT has no module of this name",
                     fix="fuse it (mlx_lm.fuse), or train without the experts")
            )  # fmt: skip
        found.setdefault(match[1], {})[_ROLES[match[2]]] = key
    for module, keys in found.items():
        if not {"a", "b"} <= set(keys):
            raise FormatError(
                message(f"{label} {shown(module)}", got=shown(", ".join(sorted(keys.values()))),
                     expected="lora_a and lora_b", fix="save the adapter again")
            )  # fmt: skip
        if "magnitude" in keys and _is_embedding(module):
            raise FormatError(
                message(f"{label} {shown(module)}", got="DoRA of an embedding", expected="LoRA",
                     fix="fuse it (mlx_lm.fuse): no other tool normalises an embedding that way")
            )  # fmt: skip
    pairs = {
        module: Pair(**keys, scale=float(scale), flipped=True, embedding=_is_embedding(module))
        for module, keys in found.items()
    }
    source = source_of_pairs(place, pairs, base)
    last = config.get("num_layers")
    known = {} if type(last) is not int or last == ALL_LAYERS else {NUM_LAYERS: str(last)}
    return [replace(source, metadata={**source.metadata, **known})]


def save_mlx(folder: Path, source: Source, dtype: str | None = None) -> dict[Part, str]:
    """Writes a task as a folder of MLX-LM; returns what each of its parts has become.

    Args:
        folder: an existing, empty folder.
        source: the task.
        dtype: of the factors; their own when None.

    Raises:
        InputError: MLX-LM cannot hold it; the message says why.
    """
    ranks = {layer.rank for layer in source.layers.values()}
    scales = {layer.scale for layer in source.layers.values()}
    if len(ranks) > 1 or len(scales) > 1:
        what = f"ranks {sorted(ranks)}" if len(ranks) > 1 else f"scales {sorted(scales)[:4]}"
        raise refuse(source, "MLX-LM", f"several {what}", "one rank and one scale for all modules")
    for module, form in source.forms.items():
        if form != EMBEDDING:
            raise refuse(source, "MLX-LM", f"{form} at {shown(module)}", "linear layers and embeddings")
    tensors: dict[str, RawTensor] = {}
    written: dict[Part, str] = {}
    for module, (lora_a, lora_b) in source.read_factors(None).items():
        for role, values in (("lora_a", lora_a), ("lora_b", lora_b)):
            key = written[Part(role, module)] = f"{module}.{role}"
            tensors[key] = raw_of(as_dtype(np.ascontiguousarray(values), dtype, module))
        written[Part("alpha", module)] = f"{CONFIG} lora_parameters.scale"
    dora = False
    for kept, raw in source.extras().items():
        part = source.companions.get(kept)
        if part is None or part.role != "magnitude" or part.module in source.forms:
            raise refuse(source, "MLX-LM", f"tensor {shown(kept)}", "pairs and DoRA's magnitudes of linear layers")
        dora = True
        key = written[part] = f"{part.module}.m"
        tensors[key] = raw
    config = _config_for(source, next(iter(ranks)), next(iter(scales)), dora)
    metadata = {key: value for key, value in metadata_for(source, "mlx").items() if key != NUM_LAYERS}
    write_tensors(folder / WEIGHTS, tensors, metadata)
    write_new(folder / CONFIG, (json.dumps(config, indent=4, sort_keys=True) + "\n").encode())
    return written


def _config_for(source: Source, rank: int, scale: float, dora: bool) -> dict[str, Any]:
    """The configuration under which MLX-LM builds pairs on exactly the source's modules."""
    keys: dict[int, set[str]] = {}
    outside, stacks = set(), set()
    for module in source.layers:
        match = _LAYER.fullmatch(module)
        if match is None or components.split(module)[0]:
            outside.add(module)
        else:
            stacks.add(match[1])
            keys.setdefault(int(match[2]), set()).add(match[3])
    if len(stacks) > 1:
        got = f"layers of {' and of '.join(sorted(shown(stack.rstrip('.') or 'no model', 60) for stack in stacks))}"
        raise refuse(source, "MLX-LM", got, "those of one model")
    numbers = sorted(keys)
    if not numbers or outside:
        got = f"{shown(min(outside))}, which is in no layer of a language model" if outside else "no module in a layer"
        raise refuse(source, "MLX-LM", got, "modules of layers, `layers.N.`")
    if numbers != list(range(numbers[0], numbers[-1] + 1)) or len({frozenset(each) for each in keys.values()}) > 1:
        raise refuse(
            source, "MLX-LM", "layers between that are not adapted, or are adapted otherwise",
            "the same modules in each of the last layers",
        )  # fmt: skip
    # which layers are the model's last is not known; on all, those without tensors change nothing
    known = source.metadata.get(NUM_LAYERS, "")
    config = {
        "fine_tune_type": "dora" if dora else "lora",
        "num_layers": int(known) if re.fullmatch(r"[0-9]{1,6}", known) else ALL_LAYERS,
        "lora_parameters": {
            "rank": rank, "scale": scale, "dropout": 0.0, "keys": sorted(keys[numbers[0]]),
        },
    }  # fmt: skip
    return config if source.base_model is None else {**config, "model": source.base_model}


def _is_embedding(module: str) -> bool:
    return module.rpartition(".")[2] in ("embed_tokens", "wte", "embeddings", "tok_embeddings")


def _config_or_nothing(folder: str | os.PathLike) -> Mapping[str, Any]:
    if not exists_inside(folder, CONFIG):
        return {}
    try:
        return parse_json(read_small(folder, CONFIG), CONFIG)
    except FormatError:
        return {}


def _bad(label: str, key: str, got: object, expected: str) -> FormatError:
    what = f"{label} {CONFIG} {key}"
    return FormatError(message(what, got=shown(repr(got), 60), expected=expected, fix="correct the file"))
