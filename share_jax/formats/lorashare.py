"""Folders of lorashare: `shared_components.safetensors` and `adapters/NAME/loadings.safetensors`.

Each factor is `components @ loadings`: `{layer}:A` (d_in, k) with (k, r), `{layer}:B` (d_out, k) with (k, r).
"""

import os

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.formats.adapter_file import Layer, Source, check_shapes
from share_jax.formats.base_model import base_model
from share_jax.formats.peft_config import parse_config
from share_jax.storage.safetensors_file import FLOATS, RawTensor, TensorFile
from share_jax.storage.untrusted import check_folder, check_task_name, exists_inside, read_json, shown

COMPONENTS = "shared_components.safetensors"


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
    folder = f"adapters/{name}"
    config = read_json(root, f"{folder}/adapter_meta.json").get("original_config")
    if not isinstance(config, dict):
        raise FormatError(
            message(f"{label} original_config", got="none", expected="an object", fix="save it with lorashare again")
        )
    settings = parse_config(config, f"{label} config:")
    with TensorFile(root, f"{folder}/loadings.safetensors") as file:
        infos, size = dict(file.tensors), file.size
    modules = sorted({key[:-2] for key in infos if key.endswith((":A", ":B"))})
    stray = [key for key in infos if not key.endswith((":A", ":B"))]
    if stray or not modules or any(f"{m}:{s}" not in infos or f"{m}:{s}" not in shapes for m in modules for s in "AB"):
        raise FormatError(
            message(f"{label} loadings", got=shown(stray or modules, 80), expected="{layer}:A and {layer}:B, as shared",
                 fix="save it with lorashare again")
        )  # fmt: skip
    settings = settings.of_modules(modules)
    layers = {}
    for module in modules:
        pairs = {side: (shapes[f"{module}:{side}"], infos[f"{module}:{side}"]) for side in "AB"}
        for side, (basis, info) in pairs.items():
            if len(basis) != 2 or len(info.shape) != 2 or basis[1] != info.shape[0] or info.dtype not in FLOATS:
                raise FormatError(
                    message(f"{label} {shown(module)}:{side}", got=f"{info.dtype} {info.shape} on {basis}",
                         expected="floats (k, r) on (d, k)", fix="save it with lorashare again")
                )  # fmt: skip
        (d_in, _), (d_out, _) = pairs["A"][0], pairs["B"][0]
        ranks = pairs["A"][1].shape[1], pairs["B"][1].shape[1]
        where = f"{label} {shown(module)}"
        _, _, rank = check_shapes(where, (ranks[0], d_in), (d_out, ranks[1]), settings.rank_of(module))
        layers[module] = Layer(d_in, d_out, rank, settings.scale_of(module), "F32")
    extras: dict[str, TensorFile] = {}
    head = f"{folder}/classifier_head.safetensors"
    if exists_inside(root, head):
        with TensorFile(root, head) as file:
            extras = dict.fromkeys(file.tensors, file)
            size += file.size

    def read_factors(chosen: tuple[str, ...] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        with TensorFile(root, COMPONENTS) as shared, TensorFile(root, f"{folder}/loadings.safetensors") as own:
            out = {}
            for module in modules if chosen is None else [m for m in chosen if m in layers]:
                with np.errstate(over="ignore", invalid="ignore"):  # an infinity is refused, as of any file
                    a, b = (
                        np.asarray(shared.read(f"{module}:{s}"), np.float32)
                        @ np.asarray(own.read(f"{module}:{s}"), np.float32)
                        for s in "AB"
                    )
                out[module] = (a, b.T)
            return out

    def read_extras() -> dict[str, RawTensor]:
        if not extras:
            return {}
        with TensorFile(root, head) as file:
            return {key: file.raw(key) for key in file.tensors}

    return Source(
        name, label, base_model(config, f"{label} config:"), config, layers, {"format": "pt"}, tuple(extras),
        size + share, read_factors, read_extras,
    )  # fmt: skip
