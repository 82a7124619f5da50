"""Folders of vlora: `subspace.safetensors` and `task_{id}.safetensors`.

Each factor is flattened row by row: `loadings @ components + mean`, components (k, r*d), then reshaped to PEFT's
A (r, in) or B (out, r). The format keeps neither alpha nor the configuration nor the base model's name: the
update is B @ A as it is stored, which is what vlora itself exports (alpha = rank).
"""

import math
import os
import re
from typing import Any, TypeGuard

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats.adapter_file import Layer, Source, check_shapes
from share_jax.storage.safetensors_file import FLOATS, TensorFile
from share_jax.storage.untrusted import check_folder, check_task_name, exists_inside, read_json, shown

SUBSPACE = "subspace.safetensors"
META = "subspace_meta.json"


def is_vlora(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like vlora's."""
    return exists_inside(folder, META) or exists_inside(folder, SUBSPACE)


def open_vlora(folder: str | os.PathLike) -> list[Source]:
    """Every task of the folder, in the order of `subspace_meta.json`.

    Raises:
        InputError: there is no such folder.
        FormatError: a file is missing, damaged, contradicts another, or is packed in 4 bits.
    """
    path = os.fspath(check_folder(folder, "vlora folder"))
    meta = read_json(path, META)
    if meta.get("format", "float32") != "float32":
        raise FormatError(
            message("vlora format", got=shown(meta["format"], 40), expected="float32", fix="save it unpacked in vlora")
        )
    names, tasks, files = meta.get("layer_names"), meta.get("task_ids"), meta.get("task_filenames") or {}
    if not _texts(names) or not _texts(tasks) or not isinstance(files, dict) or not _texts(list(files.values()), 0):
        raise FormatError(
            message("vlora subspace_meta.json", got="other contents", expected="layer_names and task_ids",
                 fix="save it with vlora again")
        )  # fmt: skip
    with TensorFile(path, SUBSPACE) as shared:
        shapes = {name: _layer_shapes(shared, name, meta) for name in names}
        size = shared.size // len(tasks)
    names_of = {task: check_task_name(re.sub(r"[/\\]", "-", task)) for task in tasks}  # a hub's is `user/name`
    return [_open_task(path, names_of[t], check_task_name(files.get(t, t)), shapes, size, meta) for t in tasks]


def _texts(value: Any, least: int = 1) -> TypeGuard[list[str]]:
    return (
        isinstance(value, list) and len(value) >= least and all(isinstance(v, str) and v.isprintable() for v in value)
    )


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int and n > 0 for n in value)


def _layer_shapes(shared: TensorFile, name: str, meta: dict) -> dict[str, tuple[tuple[int, int], int]]:
    """Side -> (the factor's shape as PEFT stores it, the number of components)."""
    out = {}
    for side in "ab":
        comps, mean = shared.info(f"{name}.components_{side}"), shared.info(f"{name}.mean_{side}")
        shape = (meta.get(f"shapes_{side}") or {}).get(name)
        rank = meta.get("rank")
        size = comps.shape[-1] if comps.shape else 0
        if shape is None and type(rank) is int and rank > 0:
            shape = [rank, size // rank] if side == "a" else [size // rank, rank]
        if not _sizes(shape) or len(comps.shape) != 2 or math.prod(shape) != size or mean.shape != (size,):
            raise FormatError(
                message(f"vlora {shown(name)}.components_{side}",
                     got=f"{comps.shape}, mean {mean.shape}, shape {shape}",
                     expected="(k, r*d), (r*d,) and the shape of the factor", fix="save it with vlora again")
            )  # fmt: skip
        if comps.dtype not in FLOATS or mean.dtype not in FLOATS:
            raise FormatError(message(f"vlora {shown(name)}", got=comps.dtype, expected="floats", fix="save it again"))
        out[side] = ((shape[0], shape[1]), comps.shape[0])
    return out


def _open_task(path: str, task: str, filename: str, shapes: dict, share: int, meta: dict) -> Source:
    label, stored = f"vlora task {shown(task)}", f"task_{filename}.safetensors"
    layers = {}
    with TensorFile(path, stored) as file:
        size = file.size
        for name, sides in shapes.items():
            where = f"{label} {shown(name)}"
            for side, (_, k) in sides.items():
                info = file.info(f"{name}.loadings_{side}")
                if info.shape != (k,) or info.dtype not in FLOATS:
                    raise FormatError(
                        message(f"{where}.loadings_{side}", got=f"{info.dtype} {info.shape}", expected=f"floats ({k},)",
                             fix="save it with vlora again")
                    )  # fmt: skip
            d_in, d_out, rank = check_shapes(where, sides["a"][0], sides["b"][0], None)
            layers[name] = Layer(d_in, d_out, rank, 1.0, "F32")

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        with TensorFile(path, SUBSPACE) as shared, TensorFile(path, stored) as own:

            def factor(name: str, side: str) -> np.ndarray:
                comps, mean, loads = (
                    np.asarray(file.read(f"{name}.{part}_{side}"), np.float32)
                    for file, part in ((shared, "components"), (shared, "mean"), (own, "loadings"))
                )
                with np.errstate(over="ignore", invalid="ignore"):  # an infinity is refused, as of any file
                    return (loads @ comps + mean).reshape(shapes[name][side][0]).T

            return {n: (factor(n, "a"), factor(n, "b")) for n in (chosen or layers) if n in layers}

    ranks = {layer.rank for layer in layers.values()}
    config: dict[str, Any] = {
        "peft_type": "LORA", "base_model_name_or_path": None, "task_type": None, "inference_mode": True,
        "r": max(ranks), "lora_alpha": max(ranks), "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in layers}),
    }  # fmt: skip
    if len(ranks) > 1:
        config["rank_pattern"] = config["alpha_pattern"] = {n: layer.rank for n, layer in layers.items()}
    return Source(
        task, label, None, config, layers, {"format": "pt"}, (), size + share, read_factors, dict
    )  # fmt: skip
