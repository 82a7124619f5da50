"""The tensors and metadata of a GGUF file, by the `gguf` package (the extra `models`)."""

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, InputError, message
from share_jax.storage.safetensors_file import RawTensor, TensorInfo, raw_of
from share_jax.storage.untrusted import open_inside, shown

_DTYPES = {"F32": "F32", "F16": "F16", "F64": "F64"}
_DAMAGE = (
    ValueError,
    KeyError,
    IndexError,
    OSError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
    struct.error,
)


class GgufTensors:
    """An open GGUF file; a context manager with the methods of `TensorFile`. The file is mapped into memory."""

    def __init__(self, folder: str | os.PathLike, name: str):
        """Opens the file and reads its metadata.

        Raises:
            InputError: the package is not installed.
            FormatError: the file is missing or damaged, or holds quantised tensors.
        """
        try:
            from gguf import GGUFReader
        except ImportError:
            raise InputError(
                message(f"file {shown(name)}", got="no package gguf", expected="it installed",
                     fix="pip install 'share_jax[models]'")
            ) from None  # fmt: skip
        self.label = f"file {shown(Path(folder).name)}/{shown(name)}"
        descriptor = open_inside(folder, name)
        try:
            self.size = os.fstat(descriptor).st_size
            with os.fdopen(descriptor, "rb") as file:
                if file.read(4) != b"GGUF":
                    raise self._broken("no GGUF mark")
            reader = GGUFReader(os.path.realpath(os.path.join(folder, name)))
            self.fields: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
            self._data = {str(each.name): each.data for each in reader.tensors}
            kinds = {str(each.name): each.tensor_type.name for each in reader.tensors}
        except _DAMAGE as e:
            if isinstance(e, FormatError):
                raise
            raise self._broken(shown(e, 80) or type(e).__name__) from None
        other = next((key for key, kind in kinds.items() if kind not in _DTYPES), None)
        if other is not None:
            raise FormatError(
                message(f"{self.label} tensor {shown(other)}", got=kinds[other], expected="F32 or F16",
                     fix="convert the adapter to GGUF again with --outtype f32")
            )  # fmt: skip
        self.tensors: Mapping[str, TensorInfo] = {
            key: TensorInfo(_DTYPES[kinds[key]], tuple(map(int, data.shape)), 0, int(data.nbytes))
            for key, data in self._data.items()
        }
        self.metadata: Mapping[str, str] = {}

    def _broken(self, got: str) -> FormatError:
        return FormatError(message(self.label, got=got, expected="a GGUF file", fix="fetch it again"))

    def __enter__(self) -> "GgufTensors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the mapped file."""
        self._data = {}

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of one tensor."""
        if name not in self.tensors:
            what = f"{self.label} tensor {shown(name)}"
            raise FormatError(message(what, got="nothing", expected="a tensor", fix="write the file again"))
        return self.tensors[name]

    def read(self, name: str) -> np.ndarray:
        """One tensor's values, copied."""
        self.info(name)
        return np.array(self._data[name])

    def read_many(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Several tensors' values by name."""
        return {name: self.read(name) for name in names}

    def raw(self, name: str) -> RawTensor:
        """One tensor's bytes, row by row."""
        return raw_of(self.read(name))
