"""Strict loading of checkpoints into Linen params: every tensor there, with its shape, and nothing else."""

import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import load_file

from share_jax.errors import FormatError, message
from share_jax.formats.flax_names import Leaf
from share_jax.storage.safetensors_file import TensorFile
from share_jax.storage.untrusted import shown


def params_of(
    layout: Mapping[str, Leaf],
    tensors: Mapping[str, np.ndarray],
    source: str,
    kind: str,
    unused: Collection[str] = (),
    dtype: DTypeLike = np.float32,
) -> dict[str, Any]:
    """Params of a layout's tensors.

    Args:
        layout: what must be there, by name in the file.
        tensors: what is there.
        source: the file, for messages.
        kind: what the file should hold, such as "a BERT encoder".
        unused: names that may be there and are left out.
        dtype: of the params.

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
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise FormatError(message(f"{source} {name}", got=tensor.dtype, expected="floats", fix=fix))
        flat[leaf.path] = jnp.asarray(leaf.to_params(tensor.astype(dtype)))
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


@dataclass(frozen=True)
class ReadWhenAsked(Mapping[str, np.ndarray]):
    """Tensors by name, each of which is read anew when it is asked for, so that never all are held at once.

    Attributes:
        readers: of each tensor what reads it.

    >>> tensors = ReadWhenAsked({"scale": lambda: np.ones(2)})
    >>> list(tensors), tensors["scale"].tolist()
    (['scale'], [1.0, 1.0])
    """

    readers: Mapping[str, Callable[[], np.ndarray]]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


@contextmanager
def open_folder(folder: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The tensors of a folder by name: of `model.safetensors`, or of the shards that its index names.

    Raises:
        FormatError: there is neither; a file cannot be read; or index and shards do not hold the same tensors.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not whole.exists() and not index.exists():
        expected = "model.safetensors, or shards with model.safetensors.index.json"
        fix = "save the model with safe_serialization, or pass the folder of the checkpoint"
        raise FormatError(message(str(folder), got="no weights", expected=expected, fix=fix))
    places = None if whole.exists() else _shards(index)
    with ExitStack() as stack:
        readers: dict[str, Callable[[], np.ndarray]] = {}
        for name in [whole.name] if places is None else sorted(set(places.values())):
            path = (folder / name).resolve()  # the hub's cache has links to its blobs
            file = stack.enter_context(TensorFile(path.parent, path.name))
            for tensor in file.tensors:
                if places is not None and places.get(tensor) != name:
                    fix = "fetch the checkpoint again"
                    got = f"{shown(tensor)} in {shown(name)}"
                    raise FormatError(message(str(index), got=got, expected="each tensor where it says", fix=fix))
                readers[tensor] = partial(file.read, tensor)
        if places is not None and (missing := sorted(set(places) - set(readers))):
            fix = "fetch the checkpoint again"
            raise FormatError(message(str(index), got=f"no {_some(missing)}", expected="every tensor", fix=fix))
        yield ReadWhenAsked(readers)


def _shards(index: Path) -> dict[str, str]:
    """Of every tensor the file that holds it, beside the index."""
    places = read_config(index, "a checkpoint's").get("weight_map")
    names = places.values() if isinstance(places, dict) else [None]
    if not isinstance(places, dict) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        expected = "a weight_map of tensors to files beside it"
        raise FormatError(message(str(index), got="another", expected=expected, fix="fetch the checkpoint again"))
    return places


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
    except (OSError, ValueError, RecursionError) as error:
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
        model: name on the Hugging Face hub, for users without weights.
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
