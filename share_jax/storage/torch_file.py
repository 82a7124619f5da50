"""Files of `torch.save` that hold tensors by name (`.bin`, `.pt`), read without PyTorch and without unpickling.

Such a file is a zip archive without compression: `*/data.pkl` is a pickle that says which tensors there are, and
`*/data/N` are their bytes. A pickle is a program. This file does not run it: `pickle_steps` goes through its steps, of
which it knows those that build containers, and the result may hold nothing but names, tensors and metadata. A step or
a name that is not among them is an error. What is larger than the file cannot be asked for.

Source: `torch/serialization.py` and `torch/_utils.py` (`_rebuild_tensor_v2`) of PyTorch; `pickletools` of Python.
"""

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.storage.pickle_steps import Call, Global, Stored, built_of
from share_jax.storage.safetensors_file import NamedTensors, RawTensor, TensorInfo, numpy_dtype
from share_jax.storage.untrusted import shown

_DTYPES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_PICKLE_LIMIT = 2**26
"""Bytes of a pickle; one of a million tensors is smaller."""


@dataclass(frozen=True)
class _Tensor:
    info: TensorInfo  # its start is the entry's beginning in the file
    offset: int  # items from there
    strides: tuple[int, ...]  # items
    items: int  # of the entry


class TorchFile(NamedTensors):
    """An open file of `torch.save`, with the methods of `TensorFile`.

    Opening it refuses what is missing, damaged, compressed, of PyTorch before 1.6, or holds anything but tensors.
    """

    metadata: Mapping[str, str] = {"format": "pt"}

    def _read_index(self) -> None:
        self._tensors = self._read_archive()
        self.tensors = {key: tensor.info for key, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor's values (read-only array)."""
        self.info(name)
        tensor = self._tensors[name]
        dtype = numpy_dtype(tensor.info.dtype)
        data = os.pread(self._fd, tensor.items * dtype.itemsize, tensor.info.start)
        if len(data) != tensor.items * dtype.itemsize:
            raise _broken(self.label, "the end of the file too early", "the whole file")
        values = np.frombuffer(data, dtype)[tensor.offset :]
        strides = tuple(n * dtype.itemsize for n in tensor.strides)
        view = np.lib.stride_tricks.as_strided(values, tensor.info.shape, strides, writeable=False)
        return view if view.flags.c_contiguous else np.ascontiguousarray(view)

    def read_many(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Several tensors' values by name."""
        return {name: self.read(name) for name in names}

    def raw(self, name: str) -> RawTensor:
        """One tensor's bytes, row by row."""
        values = self.read(name)
        return RawTensor(self.info(name).dtype, values.shape, values.tobytes())

    def _read_archive(self) -> dict[str, _Tensor]:
        try:
            with os.fdopen(os.dup(self._fd), "rb") as file, zipfile.ZipFile(file) as archive:
                entries = {info.filename: info for info in archive.infolist()}
                pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
                if len(pickles) != 1:
                    raise _broken(self.label, f"{len(pickles)} files data.pkl", "one, as torch.save writes it")
                root = pickles[0].removesuffix("data.pkl")
                if root + "byteorder" in entries and self._entry(entries, root + "byteorder", 16) != b"little":
                    raise _broken(self.label, "another byte order", "little")
                built = built_of(self._entry(entries, pickles[0], _PICKLE_LIMIT), self.label)
        except zipfile.BadZipFile as e:
            head = os.pread(self._fd, 2, 0)
            got = "a file of torch.save before PyTorch 1.6, or no such file" if head[:1] == b"\x80" else shown(e)
            raise _broken(self.label, got, "a zip archive as torch.save writes it") from None
        except FormatError:
            raise
        except (NotImplementedError, RuntimeError, ValueError, OSError, EOFError) as e:
            raise _broken(self.label, shown(e), "a zip archive as torch.save writes it") from None
        if isinstance(built, dict) and set(built) == {"state_dict"}:  # as trainers wrap it
            built = built["state_dict"]
        if not isinstance(built, dict):
            raise _broken(self.label, type(built).__name__, "tensors by name")
        return {self._name(key): self._tensor(key, value, root, entries) for key, value in built.items()}

    def _name(self, key: Any) -> str:
        if not isinstance(key, str):
            raise _broken(self.label, f"the name {shown(repr(key), 60)}", "text")
        return key

    def _place(self, entries: Mapping[str, zipfile.ZipInfo], name: str) -> tuple[int, int]:
        """(first byte, bytes) of an entry that is stored as it is."""
        info = entries.get(name)
        if info is None:
            raise _broken(self.label, f"no {shown(name)} within", "the whole archive")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise _broken(self.label, f"{shown(name)}, which is compressed", "an archive as torch.save writes it")
        head = os.pread(self._fd, 30, info.header_offset)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise _broken(self.label, f"{shown(name)} at another place", "an archive as torch.save writes it")
        start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        if start + info.file_size > self.size:
            raise _broken(self.label, f"{shown(name)} beyond the end (truncated?)", "the whole archive")
        return start, info.file_size

    def _entry(self, entries: Mapping[str, zipfile.ZipInfo], name: str, limit: int) -> bytes:
        start, size = self._place(entries, name)
        if size > limit:
            raise _broken(self.label, f"{shown(name)} of {size} bytes", f"at most {limit}")
        return os.pread(self._fd, size, start)

    def _tensor(self, key: Any, value: Any, root: str, entries: Mapping[str, zipfile.ZipInfo]) -> _Tensor:
        what = f"{self.label} tensor {shown(key)}"
        if isinstance(value, Call) and value.name == ("torch._utils", "_rebuild_parameter") and value.args:
            value = value.args[0]
        if not isinstance(value, Call) or value.name != ("torch._utils", "_rebuild_tensor_v2") or len(value.args) < 4:
            raise _broken(what, "something that is no tensor", "a tensor: nothing else is read from such a file")
        stored, offset, shape, strides = value.args[:4]
        if not isinstance(stored, Stored) or not _counts(shape) or not _counts(strides) or not _counts((offset,)):
            raise _broken(what, "another record", "a tensor as torch.save writes it")
        place = stored.key
        if not (isinstance(place, tuple) and len(place) == 5 and place[0] == "storage" and isinstance(place[2], str)):
            raise _broken(what, "another record of its storage", "a tensor as torch.save writes it")
        dtype = _DTYPES.get(place[1].name[1]) if isinstance(place[1], Global) else None
        if dtype is None or len(shape) != len(strides) or len(shape) > 32:
            raise _broken(what, "a dtype or shape that is not known", "a dense tensor of numbers")
        start, size = self._place(entries, f"{root}data/{place[2]}")
        items = size // numpy_dtype(dtype).itemsize
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if count else offset
        if count > items or (count and last >= items) or offset > items:
            raise _broken(what, f"shape {tuple(shape)} in {items} numbers", "a tensor within its storage")
        info = TensorInfo(dtype, tuple(shape), start, count * numpy_dtype(dtype).itemsize)
        return _Tensor(info, offset, tuple(strides), items)


def _counts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(type(n) is int and 0 <= n < 2**48 for n in value)


def _broken(label: str, got: str, expected: str) -> FormatError:
    return FormatError(message(label, got=got, expected=expected, fix="save the tensors as safetensors"))
