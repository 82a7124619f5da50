"""The known formats of adapter files: how each is recognised, opened and written. A new format is one entry here."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share_jax.adapters.factors import Adapter
from share_jax.errors import InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.comfy import is_comfy, open_comfy
from share_jax.formats.components import COMPONENTS
from share_jax.formats.diffusers import is_diffusers, open_diffusers
from share_jax.formats.export import export_adapter
from share_jax.formats.gguf_lora import is_gguf, open_gguf
from share_jax.formats.jax_trees import is_jax_tree, open_jax_tree
from share_jax.formats.kohya import is_kohya, open_kohya
from share_jax.formats.lorashare import ADAPTERS, is_lorashare, open_lorashare
from share_jax.formats.mlx import is_mlx, open_mlx
from share_jax.formats.peft import CONFIG, WEIGHTS, is_adapter, open_adapter
from share_jax.formats.peft_parts import is_peft_parts, open_peft_parts
from share_jax.formats.vlora import is_vlora, open_vlora
from share_jax.storage.safetensors_file import RawTensor
from share_jax.storage.untrusted import shown

Write = Callable[
    [Path, Adapter, Mapping[str, Any], Mapping[str, RawTensor], Mapping[str, str], str, Mapping[str, str]],
    dict[str, Any],
]
"""(existing folder, adapter, configuration, uncompressed tensors, metadata, dtype, forms) -> the configuration as
written."""


@dataclass(frozen=True)
class Format:
    """One format of adapter files.

    Attributes:
        name: as messages give it.
        detect: whether a folder looks like one of this format, be it damaged.
        open: every task of the folder.
        write: writes one task; None where the format is read alone.
        alone: whether a folder of these entries is an adapter and nothing else, so that it may be replaced as one. An
            adapter's file may lie beside other things. Without it no folder is replaced.

    Example:
        >>> [each.name for each in FORMATS if each.detect("cola")]
        ['PEFT']
        >>> [each.name for each in FORMATS if each.write is not None]
        ['PEFT']
    """

    name: str
    detect: Callable[[str | os.PathLike], bool]
    open: Callable[[str | os.PathLike], list[Source]]
    write: Write | None = None
    alone: Callable[[Path, list[str]], bool] = lambda folder, entries: False

    def is_whole(self, folder: str | os.PathLike) -> bool:
        """Whether the folder is an adapter of this format and nothing else."""
        path = Path(folder)
        return self.detect(path) and self.alone(path, sorted(os.listdir(path)))


_BESIDE = (".json", ".md", ".txt", ".jinja", ".model", ".safetensors", ".bin", ".npz", "")
"""Endings of what tools put beside an adapter: its card, its tokenizer, its training's arguments."""


def _is_peft(folder: str | os.PathLike) -> bool:
    return (is_adapter(folder) and not is_mlx(folder)) or is_peft_parts(folder)


def _open_peft(folder: str | os.PathLike) -> list[Source]:
    return open_peft_parts(folder) if is_peft_parts(folder) else [open_adapter(folder)]


def _is_adapter_or_parts(folder: Path, entries: list[str]) -> bool:
    return set(entries) <= set(COMPONENTS) or (
        not {CONFIG, WEIGHTS}.isdisjoint(entries) and _are_files(folder, entries)
    )


def _are_files(folder: Path, entries: list[str]) -> bool:
    return all((folder / name).is_file() and Path(name).suffix in _BESIDE for name in entries)


def _are_files_and_adapters(folder: Path, entries: list[str]) -> bool:
    inside = folder / ADAPTERS
    own = sorted(inside.iterdir()) if inside.is_dir() else []
    return _are_files(folder, [name for name in entries if name != ADAPTERS]) and all(
        each.is_dir() and _are_files(each, os.listdir(each)) for each in own
    )


def _is_one_file(folder: Path, entries: list[str]) -> bool:
    return len(entries) == 1


FORMATS = (
    Format("PEFT", _is_peft, _open_peft, export_adapter, _is_adapter_or_parts),
    Format("lorashare", is_lorashare, open_lorashare, alone=_are_files_and_adapters),
    Format("vlora", is_vlora, open_vlora, alone=_are_files),
    Format("MLX-LM", is_mlx, open_mlx, alone=_are_files),
    Format("diffusers", is_diffusers, open_diffusers, alone=_is_one_file),
    Format("kohya", is_kohya, open_kohya, alone=_is_one_file),
    Format("ComfyUI", is_comfy, open_comfy, alone=_is_one_file),
    Format("GGUF", is_gguf, open_gguf, alone=_is_one_file),
    Format("JAX trees", is_jax_tree, open_jax_tree, alone=_is_one_file),
)
"""In the order in which a folder is asked."""


def names_of(formats: tuple[Format, ...]) -> str:
    """The formats' names, as a message lists them.

    >>> names_of(FORMATS)
    'PEFT, lorashare, vlora, MLX-LM, diffusers, kohya, ComfyUI, GGUF or JAX trees'
    """
    *first, last = (each.name for each in formats)
    return f"{', '.join(first)} or {last}" if first else last


def writer(name: str) -> Write:
    """How tasks are written in a format.

    Raises:
        InputError: there is no such format, or it is read alone.
    """
    written = {each.name: each.write for each in FORMATS if each.write is not None}
    if name not in written:
        expected = names_of(tuple(each for each in FORMATS if each.write is not None))
        raise InputError(message("format to write", got=shown(name), expected=expected, fix="write PEFT folders"))
    return written[name]
