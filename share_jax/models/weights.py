"""Strict loading of checkpoints into Linen params: every tensor there, with its shape, and nothing else."""

import json
import os
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from share_jax.errors import FormatError, message
from share_jax.formats.flax_names import Leaf


def params_of(
    layout: Mapping[str, Leaf], tensors: Mapping[str, np.ndarray], source: str, kind: str, unused: Collection[str] = ()
) -> dict[str, Any]:
    """Params, float32, of a layout's tensors.

    Args:
        layout: what must be there, by name in the file.
        tensors: what is there.
        source: the file, for messages.
        kind: what the file should hold, such as "a BERT encoder".
        unused: names that may be there and are left out.

    Raises:
        FormatError: a tensor is missing, unexpected, wrong-shaped or not of floats.
    """
    fix = "take the checkpoint that its config describes"
    if missing := sorted(set(layout) - set(tensors)):
        raise FormatError(message(source, got=f"no {_some(missing)}", expected=f"every tensor of {kind}", fix=fix))
    if unexpected := sorted(set(tensors) - set(layout) - set(unused)):
        raise FormatError(message(source, got=_some(unexpected), expected=f"only {kind}", fix=fix))
    flat = {}
    for name, leaf in layout.items():
        tensor = tensors[name]
        if tensor.shape != leaf.stored:
            raise FormatError(message(f"{source} {name}", got=tensor.shape, expected=leaf.stored, fix=fix))
        if not np.issubdtype(tensor.dtype, np.floating):
            raise FormatError(message(f"{source} {name}", got=tensor.dtype, expected="floats", fix=fix))
        flat[leaf.path] = jnp.asarray(leaf.to_params(tensor.astype(np.float32)))
    return unflatten_dict(flat)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        fix = "fetch the checkpoint again"
        raise FormatError(message(str(path), got=error, expected="a safetensors file", fix=fix)) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name; one that holds pickled objects is refused, so no code runs.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError, NotImplementedError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(
            message(str(path), got=reason, expected="an npz file of arrays", fix="fetch it again")
        ) from error


def read_config(path: Path, kind: str) -> dict[str, Any]:
    """A `config.json` as a dict.

    Raises:
        FormatError: it cannot be read, or is no JSON object.
    """
    fix = f"pass a folder with {kind} config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(message(str(path), got=error, expected="a JSON object", fix=fix)) from error
    if not isinstance(raw, dict):
        raise FormatError(message(str(path), got=type(raw).__name__, expected="a JSON object", fix=fix))
    return raw


def without_prefix(tensors: Mapping[str, np.ndarray], prefix: str, source: str) -> dict[str, np.ndarray]:
    """The tensors with `prefix` taken off where names have it: an encoder stored as a part of a larger model.

    Raises:
        FormatError: two would have one name.
    """
    plain = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if len(plain) < len(tensors):
        got, expected = f"names both with and without {prefix!r}", "one of the two"
        raise FormatError(message(source, got=got, expected=expected, fix="take a checkpoint of one model"))
    return plain


def local_folder(weights: str | os.PathLike[str] | None, model: str, files: str) -> Path:
    """The path that --weights names.

    Args:
        weights: as given.
        model: name on the Hugging Face hub, for who has no weights yet.
        files: what is wanted of it.

    Raises:
        FormatError: none is given, or there is nothing.
    """
    fix = f"download {files} of {model} from the Hugging Face hub and pass --weights PATH"
    if weights is None:
        raise FormatError(message("--weights", got="none", expected=f"the pretrained {model}", fix=fix))
    path = Path(weights).expanduser()
    if not path.exists():
        raise FormatError(message("--weights", got=f"no file or folder {path}", expected=f"{model}", fix=fix))
    return path


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
