"""PEFT adapter folders: `adapter_model.safetensors` or `.bin`, and `adapter_config.json`, read lazily, written whole.

PEFT stores A as (r, in) and B as (out, r); here `lora_a` is (in, r) and `lora_b` (r, out). `pair_layouts` has the other
kinds of pairs, `peft_keys` the names. What belongs to a pair but is none of its factors, DoRA's magnitudes and the
biases of lora_B, stays beside it as it is.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats.adapter_file import Layer, Part, Source, check_shapes
from share_jax.formats.base_model import base_model
from share_jax.formats.pair_layouts import (
    EMBEDDING,
    LINEAR,
    expert_form,
    expert_layer,
    expert_of,
    factors_of_expert,
    factors_of_tensors,
    join_experts,
    module_of,
    pair_shape,
    tensors_of_factors,
)
from share_jax.formats.peft_config import LoraSettings, parse_config
from share_jax.formats.peft_keys import PeftKeys, pair_names, sort_keys
from share_jax.formats.peft_tokens import check_tokens
from share_jax.formats.saving import as_dtype
from share_jax.formats.tensor_files import open_tensors
from share_jax.storage.atomic_write import flush, write_new
from share_jax.storage.safetensors_file import FLOATS, RawTensor, raw_of, write_tensors
from share_jax.storage.untrusted import check_folder, exists_inside, read_json, shown, task_name_of

WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
CONFIG = "adapter_config.json"

DTYPES = {"F32": "f32", "BF16": "bf16", "F16": "f16", "F64": "f32"}
"""How a stored dtype is asked for at export; float64 factors come back in float32."""


def is_adapter(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like a PEFT adapter's.

    Example:
        >>> is_adapter("cola"), is_adapter("set")
        (True, False)
    """
    return any(exists_inside(folder, name) for name in (CONFIG, WEIGHTS, PICKLED))


def open_adapter(folder: str | os.PathLike, name: str | None = None) -> Source:
    """Reads the configuration and the names of the tensors; their values stay on the disk.

    Args:
        folder: the adapter's folder.
        name: the task's name; the folder's own when None.

    Raises:
        InputError: there is no such folder.
        FormatError: a file is missing or damaged, or says something that is not supported.
        TaskError: the name is not safe.

    Example:
        >>> source = open_adapter("cola", name="grammar")
        >>> source.name, source.config["r"], list(source.layers)[:1]
        ('grammar', 4, ['model.layers.0.self_attn.q_proj'])
    """
    path = check_folder(folder, "adapter")
    name = task_name_of(path) if name is None else name
    label = f"adapter {shown(name)}"
    config = read_json(path, CONFIG)
    settings = parse_config(config, f"{label} {CONFIG}:")
    for key, value in (("r", settings.rank), ("lora_alpha", settings.alpha)):
        config.setdefault(key, value)
    weights = PICKLED if exists_inside(path, PICKLED) and not exists_inside(path, WEIGHTS) else WEIGHTS
    with open_tensors(path, weights) as file:
        keys = sort_keys(file.tensors, label, settings.saved)
        settings = settings.of_modules(keys.pairs)
        layers: dict[str, Layer] = {}
        for module, pair in keys.pairs.items():
            infos = tuple(file.info(key) for key in pair)
            for info in infos:
                if info.dtype not in FLOATS:
                    what = f"{label} {shown(module)}"
                    raise FormatError(message(what, got=info.dtype, expected="a float dtype", fix="convert it"))
            shapes = infos[0].shape, infos[1].shape
            layers.update(_layers_of(module, shapes, infos[0].dtype, module in keys.embeddings, settings, label))
        _check_parameters(settings, keys, label)
        everything = {key: info.shape for key, info in file.tensors.items()}
        _check_companions(keys, everything, layers, settings, label)
        check_tokens(config, everything, f"{label} {CONFIG}:")
        size, metadata = file.size, dict(file.metadata)
    size += os.stat(path / CONFIG).st_size
    modules = {layer: module_of(layer, made.form) for layer, made in layers.items()}

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        names = [layer for layer in (layers if chosen is None else chosen) if layer in layers]
        wanted = dict.fromkeys(modules[layer] for layer in names)
        with open_tensors(path, weights) as file:
            read = file.read_many([key for module in wanted for key in keys.pairs[module]])
        out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for layer in names:
            a, b = (read[key] for key in keys.pairs[modules[layer]])
            expert = expert_of(layers[layer].form)
            out[layer] = factors_of_tensors(a, b) if expert is None else factors_of_expert(a, b, *expert)
        return out

    def read_extras() -> dict[str, RawTensor]:
        with open_tensors(path, weights) as file:
            return {kept: file.raw(key) for kept, key in keys.extras.items()}

    return Source(
        name, label, base_model(config, f"{label} {CONFIG}:"), config, layers, metadata, tuple(keys.extras), size,
        read_factors, read_extras, _parts_of(keys),
    )  # fmt: skip


def _parts_of(keys: PeftKeys) -> dict[str, Part]:
    """What each tensor of the file is."""
    out = {key: Part("whole", kept) for kept, key in keys.extras.items()}
    for role, named in (("bias", keys.biases), ("magnitude", keys.magnitudes)):
        out.update({key: Part(role, module) for module, key in named.items()})
    for module, pair in keys.pairs.items():
        out.update({key: Part(role, module) for key, role in zip(pair, ("lora_a", "lora_b"), strict=True)})
    return out


def _layers_of(
    module: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: str,
    embedding: bool,
    settings: LoraSettings,
    label: str,
) -> dict[str, Layer]:
    """The layers of one pair of tensors: one, or one for each expert."""
    where = f"{label} {shown(module)}"
    targeted = settings.targets_module(module)
    parameters = () if targeted else settings.parameters_of(_owner(module))
    if not parameters:
        if not targeted:
            raise FormatError(
                message(where, got="not named by target_modules", expected="a target", fix="correct the config")
            )
        form, of_a, of_b = pair_shape(where, *shapes, embedding)
        d_in, d_out, rank = check_shapes(where, of_a, of_b, settings.rank_of(module))
        alpha = None if settings.use_rslora else settings.alpha_of(module)
        return {module: Layer(d_in, d_out, rank, settings.scale_of(module), dtype, form, alpha)}
    known = {(rank, settings.scale_of(name)) for name in parameters if (rank := settings.rank_of(name))}
    if len(known) != 1:
        raise FormatError(
            message(where, got=f"{len(known) or 'no'} ranks and scales for {', '.join(map(shown, parameters))}",
                 expected="one for the parameters of a module: the file does not tell them apart",
                 fix="correct rank_pattern or alpha_pattern")
        )  # fmt: skip
    rank, scale = known.pop()
    d_in, d_out, rows = check_shapes(where, *shapes, None)
    if rows % rank:
        fix = "correct r or rank_pattern"
        raise FormatError(
            message(f"{where} rank", got=f"{rows} rows", expected=f"a multiple of {rank}: one set per expert", fix=fix)
        )
    count = rows // rank
    if count == 1:
        return {module: Layer(d_in, d_out, rank, scale, dtype, LINEAR)}
    return {
        expert_layer(module, e): Layer(d_in, d_out, rank, scale, dtype, expert_form(e, count)) for e in range(count)
    }


def _check_parameters(settings: LoraSettings, keys: PeftKeys, label: str) -> None:
    """Checks that every parameter that is named as a target has a pair."""
    modules = [_owner(module) for module in keys.pairs if not settings.targets_module(module)]
    named = {parameter for module in modules for parameter in settings.parameters_of(module)}
    for target in settings.parameters:
        if not any(name == target or name.endswith(f".{target}") for name in named):
            raise FormatError(
                message(f"{label} target_parameters {shown(target)}", got="no pair for it", expected="one in the file",
                     fix="correct the config")
            )  # fmt: skip


def _owner(module: str) -> str:
    """The module without the wrappers of PEFT, one for each of its parameters."""
    return ".".join(part for part in module.split(".") if part != "base_layer")


def _check_companions(
    keys: PeftKeys,
    shapes: Mapping[str, tuple[int, ...]],
    layers: Mapping[str, Layer],
    settings: LoraSettings,
    label: str,
) -> None:
    """Checks the magnitudes and the biases of lora_B: each module has them, as the configuration says."""
    for flag, used, named in (
        ("use_dora", settings.use_dora, keys.magnitudes),
        ("lora_bias", settings.lora_bias, keys.biases),
    ):
        missing = next((m for m in keys.pairs if used and m not in named), None)
        stray = next((m for m in named if not used), None)
        if missing is not None or stray is not None:
            got = f"{flag} {used}, but {'nothing' if stray is None else 'a tensor'} for {shown(missing or stray)}"
            raise FormatError(message(label, got=got, expected="the two to agree", fix="save the adapter again"))
        for module, key in named.items():
            if module not in layers or np.prod(shapes[key]) != layers[module].d_out:
                raise FormatError(
                    message(f"{label} tensor {shown(key)}", got=f"shape {shapes[key]}", fix="save the adapter again",
                         expected="one number for each output of its module")
                )  # fmt: skip


def write_adapter(
    folder: Path,
    config: Mapping[str, Any],
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    extras: Mapping[str, RawTensor],
    metadata: Mapping[str, str],
    dtype: str | Mapping[str, str] = "f32",
    forms: Mapping[str, str] | None = None,
) -> None:
    """Writes an adapter's two files into an existing folder.

    Args:
        folder: where; it must hold neither file yet.
        config: what `adapter_config.json` shall hold; its rank and alpha must already fit the factors.
        factors: module name -> (lora_a (d_in, r), lora_b (r, d_out)).
        extras: tensors to copy as they are, under their own names.
        metadata: of the safetensors file; `{"format": "pt"}` is what PEFT writes.
        dtype: of the factors, `f32`, `bf16` or `f16`, for all or per module.
        forms: module name -> how its pair lies in the file, where it is not as two matrices; see `pair_layouts`.

    Raises:
        InputError: a value does not fit the dtype.

    Example:
        >>> Path("mine").mkdir()
        >>> pairs = {"layers.0.q_proj": (np.ones((6, 2)), np.ones((2, 4)))}
        >>> config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
        >>> write_adapter(Path("mine"), config, pairs, extras={}, metadata={"format": "pt"}, dtype="bf16")
        >>> open_adapter("mine").layers["layers.0.q_proj"].dtype
        'BF16'
    """
    tensors: dict[str, RawTensor] = dict(extras)
    for module, (pair, form) in _by_module(factors, forms or {}).items():
        own = dtype if isinstance(dtype, str) else dtype.get(module, "f32")
        for key, values in zip(pair_names(module, form == EMBEDDING), pair, strict=True):
            tensors[key] = raw_of(np.ascontiguousarray(as_dtype(values, own, module)))
    write_tensors(folder / WEIGHTS, tensors, metadata or {"format": "pt"})
    write_new(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    flush(folder)


def _by_module(
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]], forms: Mapping[str, str]
) -> dict[str, tuple[tuple[np.ndarray, np.ndarray], str]]:
    """Module -> (its tensors A and B, its form), the experts of a parameter joined."""
    out: dict[str, tuple[tuple[np.ndarray, np.ndarray], str]] = {}
    experts: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for layer, pair in factors.items():
        form = forms.get(layer, LINEAR)
        expert = expert_of(form)
        if expert is None:
            out[layer] = tensors_of_factors(*pair, form), form
        else:
            experts.setdefault(module_of(layer, form), {})[expert[0]] = pair
    return out | {module: (join_experts(pairs), LINEAR) for module, pairs in experts.items()}
