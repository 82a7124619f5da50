"""Folders of lorashare: `shared_components.safetensors` and `adapters/NAME/loadings.safetensors`.

Each factor is `components @ loadings`: `{layer}:A` (d_in, k) with (k, r), `{layer}:B` (d_out, k) with (k, r).
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats.adapter_file import Layer, Source, check_shapes
from share_jax.formats.base_model import base_model
from share_jax.formats.peft_config import LoraSettings, parse_config
from share_jax.storage.safetensors_file import FLOATS, RawTensor, TensorFile, TensorInfo
from share_jax.storage.untrusted import check_folder, check_task_name, exists_inside, read_json, shown

COMPONENTS = "shared_components.safetensors"
ADAPTERS = "adapters"
_AGAIN = "save it with lorashare again"


def is_lorashare(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like lorashare's."""
    return exists_inside(folder, COMPONENTS)


def open_lorashare(folder: str | os.PathLike) -> list[Source]:
    """Every task of the folder, in the order of `share_config.json`.

    Raises:
        InputError: there is no such folder.
        FormatError: a file is missing, damaged or contradicts another.
    """
    path = check_folder(folder, "lorashare folder")
    names = read_json(path, "share_config.json").get("adapter_names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise FormatError(
            message("share_config.json adapter_names", got=shown(names, 60), expected="names", fix="correct the file")
        )
    with TensorFile(path, COMPONENTS) as shared:
        shapes = {key: info.shape for key, info in shared.tensors.items()}
        size = shared.size
        if any(info.dtype not in FLOATS for info in shared.tensors.values()):
            raise FormatError(message(shared.label, got="integers", expected="float tensors", fix="save it again"))
    return [_open_task(os.fspath(path), check_task_name(name), shapes, size // len(names)) for name in names]


def _open_task(root: str, name: str, shapes: dict[str, tuple[int, ...]], share: int) -> Source:
    label = f"lorashare task {shown(name)}"
    folder = f"{ADAPTERS}/{name}"
    config = read_json(root, f"{folder}/adapter_meta.json").get("original_config")
    if not isinstance(config, dict):
        raise FormatError(message(f"{label} original_config", got="none", expected="an object", fix=_AGAIN))
    loadings, head = f"{folder}/loadings.safetensors", f"{folder}/classifier_head.safetensors"
    with TensorFile(root, loadings) as file:
        infos, size = dict(file.tensors), file.size
    layers = _layers(label, infos, shapes, parse_config(config, f"{label} config:"))
    extras: tuple[str, ...] = ()
    if exists_inside(root, head):
        with TensorFile(root, head) as file:
            extras = tuple(file.tensors)
            size += file.size

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return _factors(root, loadings, [m for m in (layers if chosen is None else chosen) if m in layers])

    def read_extras() -> dict[str, RawTensor]:
        if not extras:
            return {}
        with TensorFile(root, head) as file:
            return {key: file.raw(key) for key in file.tensors}

    return Source(
        name, label, base_model(config, f"{label} config:"), config, layers, {"format": "pt"}, extras,
        size + share, read_factors, read_extras,
    )  # fmt: skip


def _layers(
    label: str, infos: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]], settings: LoraSettings
) -> dict[str, Layer]:
    """The task's layers by name, from the shapes of its loadings and of what all tasks share."""
    modules = sorted({key[:-2] for key in infos if key.endswith((":A", ":B"))})
    stray = [key for key in infos if not key.endswith((":A", ":B"))]
    if stray or not modules or any(f"{m}:{s}" not in infos or f"{m}:{s}" not in shapes for m in modules for s in "AB"):
        got, expected = shown(stray or modules, 80), "{layer}:A and {layer}:B, as shared"
        raise FormatError(message(f"{label} loadings", got=got, expected=expected, fix=_AGAIN))
    settings = settings.of_modules(modules)
    layers = {}
    for module in modules:
        where = f"{label} {shown(module)}"
        pairs = {side: (shapes[f"{module}:{side}"], infos[f"{module}:{side}"]) for side in "AB"}
        for side, (basis, info) in pairs.items():
            if len(basis) != 2 or len(info.shape) != 2 or basis[1] != info.shape[0] or info.dtype not in FLOATS:
                got, expected = f"{info.dtype} {info.shape} on {basis}", "floats (k, r) on (d, k)"
                raise FormatError(message(f"{where}:{side}", got=got, expected=expected, fix=_AGAIN))
        (d_in, _), (d_out, _) = pairs["A"][0], pairs["B"][0]
        ranks = pairs["A"][1].shape[1], pairs["B"][1].shape[1]
        _, _, rank = check_shapes(where, (ranks[0], d_in), (d_out, ranks[1]), settings.rank_of(module))
        layers[module] = Layer(d_in, d_out, rank, settings.scale_of(module), "F32")
    return layers


def _factors(root: str, loadings: str, modules: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each layer's factors (d_in, r) and (r, d_out), in float32."""
    out = {}
    with TensorFile(root, COMPONENTS) as shared, TensorFile(root, loadings) as own:

        def factor(key: str) -> np.ndarray:
            with np.errstate(over="ignore", invalid="ignore"):  # an infinity is refused, as of any file
                return np.asarray(shared.read(key), np.float32) @ np.asarray(own.read(key), np.float32)

        for module in modules:
            out[module] = factor(f"{module}:A"), factor(f"{module}:B").T
    return out
