"""PEFT adapter folders: `adapter_model.safetensors` and `adapter_config.json`, read lazily, written whole.

PEFT stores A as (r, in) and B as (out, r); here `lora_a` is (in, r) and `lora_b` (r, out). The conversion
happens in this file and nowhere else.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Layer, Source, check_shapes
from share_jax.formats.peft_config import base_model, parse_config
from share_jax.storage.atomic_write import flush, write_new
from share_jax.storage.safetensors_file import FLOATS, RawTensor, TensorFile, raw_of, write_tensors
from share_jax.storage.untrusted import check_folder, exists_inside, read_json, shown, task_name_of

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."

_LORA = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight", re.DOTALL)
_FOREIGN = ("lora_", "hada_", "lokr_", "oft_", "vera_", "ia3_", "prompt_embeddings", "randlora", "fourierft")
_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
DTYPES = {"F32": "f32", "BF16": "bf16", "F16": "f16", "F64": "f32"}
"""How a stored dtype is asked for at export; float64 factors come back in float32."""


def is_adapter(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like a PEFT adapter's."""
    return exists_inside(folder, CONFIG) or exists_inside(folder, WEIGHTS)


def open_adapter(folder: str | os.PathLike, name: str | None = None) -> Source:
    """Reads the configuration and the header of the weights; the tensors stay on the disk.

    Args:
        folder: the adapter's folder.
        name: the task's name; the folder's own when None.

    Raises:
        InputError: there is no such folder.
        FormatError: a file is missing or damaged, or says something that is not supported.
        TaskError: the name is not safe.
    """
    path = check_folder(folder, "adapter")
    name = task_name_of(path) if name is None else name
    label = f"adapter {shown(name)}"
    _refuse_pickles(path, label)
    config = read_json(path, CONFIG)
    settings = parse_config(config, f"{label} {CONFIG}:")
    with TensorFile(path, WEIGHTS) as file:
        keys, extras = _sort_keys(file, label)
        layers = {}
        for module, (key_a, key_b) in keys.items():
            where = f"{label} {shown(module)}"
            if not settings.targets_module(module):
                raise FormatError(
                    message(where, got="not named by target_modules", expected="a target", fix="correct the config")
                )
            info_a, info_b = file.info(key_a), file.info(key_b)
            d_in, d_out, rank = check_shapes(where, info_a.shape, info_b.shape, settings.rank_of(module))
            for info in (info_a, info_b):
                if info.dtype not in FLOATS:
                    raise FormatError(message(where, got=info.dtype, expected="a float dtype", fix="convert it"))
            layers[module] = Layer(d_in, d_out, rank, settings.scale_of(module), info_a.dtype)
        size, metadata = file.size, dict(file.metadata)
    size += os.stat(path / CONFIG).st_size

    def read_factors(modules: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        with TensorFile(path, WEIGHTS) as file:
            chosen = keys if modules is None else {m: keys[m] for m in modules if m in keys}
            read = file.read_many([key for pair in chosen.values() for key in pair])
            return {m: (read[a].T, read[b].T) for m, (a, b) in chosen.items()}

    def read_extras() -> dict[str, RawTensor]:
        with TensorFile(path, WEIGHTS) as file:
            return {key: file.raw(key) for key in extras}

    return Source(
        name, label, base_model(config, f"{label} {CONFIG}:"), config, layers, metadata, extras, size,
        read_factors, read_extras,
    )  # fmt: skip


def write_adapter(
    folder: Path,
    config: Mapping[str, Any],
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    extras: Mapping[str, RawTensor],
    metadata: Mapping[str, str],
    dtype: str | Mapping[str, str] = "f32",
) -> None:
    """Writes an adapter's two files into an existing folder.

    Args:
        folder: where; it must hold neither file yet.
        config: what `adapter_config.json` shall hold; its rank and alpha must already fit the factors.
        factors: module name -> (lora_a (d_in, r), lora_b (r, d_out)).
        extras: tensors to copy as they are, under their own names.
        metadata: of the safetensors file; `{"format": "pt"}` is what PEFT writes.
        dtype: of the factors, `f32`, `bf16` or `f16`, for all or per module.

    Raises:
        InputError: a value does not fit the dtype.
    """
    tensors: dict[str, RawTensor] = dict(extras)
    for module, pair in factors.items():
        target = _numpy_dtype(dtype if isinstance(dtype, str) else dtype[module])
        for side, values in zip("AB", pair, strict=True):
            with np.errstate(over="ignore"):
                cast = np.ascontiguousarray(values.T).astype(target)
            if target.itemsize == 2 and not np.isfinite(cast.astype(np.float32)).all():
                raise InputError(
                    message(f"module {shown(module)}", got=f"a value too large for {target}", expected="one that fits",
                         fix="pass --dtype f32")
                )  # fmt: skip
            tensors[f"{PREFIX}{module}.lora_{side}.weight"] = raw_of(cast)
    write_tensors(folder / WEIGHTS, tensors, metadata or {"format": "pt"})
    write_new(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    flush(folder)


def _numpy_dtype(name: str) -> np.dtype:

    return np.dtype(ml_dtypes.bfloat16 if name == "bf16" else _NAMES[name])


def _refuse_pickles(path: Path, label: str) -> None:
    if exists_inside(path, "adapter_model.bin") and not exists_inside(path, WEIGHTS):
        raise FormatError(
            message(
                label,
                got="adapter_model.bin, a pickle that can run code",
                expected=WEIGHTS,
                fix="load it in PEFT and call save_pretrained(folder, safe_serialization=True)",
            )
        )


def _sort_keys(file: TensorFile, label: str) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """({module: (key of A, key of B)}, the keys that stay as they are)."""
    found: dict[str, dict[str, str]] = {}
    extras = []
    for key in file.tensors:
        match = _LORA.fullmatch(key)
        if match:
            module, side = match.groups()
            if not module.isprintable() or side in found.setdefault(module, {}):
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got="a module named twice or unprintably",
                         expected="one pair per module", fix="save the adapter again")
                )  # fmt: skip
            found[module][side] = key
        elif any(mark in key for mark in _FOREIGN):
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got="a kind that is not supported",
                     expected="lora_A.weight and lora_B.weight of linear layers", fix="leave it out of the adapter")
            )  # fmt: skip
        else:
            extras.append(key)
    if not found:
        raise FormatError(
            message(label, got="no lora_A and lora_B tensors", expected="at least one pair", fix="check the file")
        )
    for module, sides in found.items():
        if len(sides) != 2:
            raise FormatError(
                message(f"{label} {shown(module)}", got=f"lora_{next(iter(sides))} alone", expected="lora_A and lora_B",
                     fix="save the adapter again")
            )  # fmt: skip
    return {m: (s["A"], s["B"]) for m, s in found.items()}, tuple(extras)
