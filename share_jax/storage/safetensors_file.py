"""Safetensors files, tensor by tensor: read lazily and strictly, written with a checksum.

Format: 8 bytes little-endian header length, a JSON header `{name: {dtype, shape, data_offsets}}`, then
the data without holes. The bytes of every dtype pass through unread, so what is copied is copied exactly.
Only `pread` touches the file: a shrinking file is a short read, not a fault.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import ml_dtypes
import numpy as np

from share_jax.errors import FormatError, message
from share_jax.storage.atomic_write import flush
from share_jax.storage.unfetched import SIZE, stand_in
from share_jax.storage.untrusted import open_inside, parse_json, shown

HEADER_LIMIT = 100_000_000
"""Bytes; the format's own limit."""
KNOWN_LIMIT = 2**20
"""Bytes; a header up to this is kept, for the next file that has the same."""

_NUMPY = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16",
    "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64",
    "BF16": "bfloat16", "C64": "complex64",
}  # fmt: skip
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
"""Dtypes a LoRA factor may have."""
TOGETHER = 2**26
"""Bytes of tensors that are read at once."""


@dataclass(frozen=True)
class RawTensor:
    """A tensor as the file holds it."""

    dtype: str  # the format's own name, as BF16
    shape: tuple[int, ...]
    data: bytes  # little-endian, row-major

    def array(self) -> np.ndarray:
        """The values; a dtype that numpy lacks cannot be asked for."""
        return np.frombuffer(self.data, numpy_dtype(self.dtype)).reshape(self.shape)


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the file's beginning
    size: int  # bytes


Header = tuple[Mapping[str, str], Mapping[str, TensorInfo]]
"""The metadata, and where every tensor lies."""


@functools.cache
def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype of a safetensors dtype name."""
    if name == "BF16":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_NUMPY[name]).newbyteorder("<")


def raw_of(array: np.ndarray) -> RawTensor:
    """An array as the file holds it."""
    name = next(key for key, value in _NUMPY.items() if value == array.dtype.name)
    data = np.ascontiguousarray(array).astype(numpy_dtype(name), copy=False).tobytes()
    return RawTensor(name, array.shape, data)


class NamedTensors(ABC):
    """An open file of tensors by name; a context manager. What it says of them is read first, and no tensor.

    Attributes:
        label: what it is, for messages.
        size: bytes.
        tensors: by name, each one's dtype, shape and place.
    """

    tensors: Mapping[str, TensorInfo]

    def __init__(self, folder: str | os.PathLike, name: str):
        """Opens the file and reads which tensors it holds.

        Raises:
            FormatError: the file is missing, damaged or not what its format says.
        """
        self.label = f"file {shown(Path(folder).name)}/{shown(name)}"
        self._fd = open_inside(folder, name)
        try:
            self.size = os.fstat(self._fd).st_size
            self._read_index()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def info(self, name: str) -> TensorInfo:
        """Dtype, shape and place of one tensor.

        Raises:
            FormatError: the file has none of that name.
        """
        if name not in self.tensors:
            what = f"{self.label} tensor {shown(name)}"
            raise FormatError(message(what, got="nothing", expected="a tensor", fix="write the file again"))
        return self.tensors[name]

    @abstractmethod
    def _read_index(self) -> None:
        """Reads which tensors there are."""


class TensorFile(NamedTensors):
    """An open safetensors file. Nothing but the header is read at first."""

    def _read_index(self) -> None:
        self.metadata, self.tensors = _header(self._read(0, min(8, self.size)), self._read, self.size, self.label)

    def raw(self, name: str) -> RawTensor:
        """One tensor's bytes, of any dtype."""
        info = self.info(name)
        return RawTensor(info.dtype, info.shape, self._read(info.start, info.size))

    def read(self, name: str) -> np.ndarray:
        """One tensor's values (read-only array).

        Raises:
            FormatError: missing, cut short, or of a dtype that has no values here.
        """
        self._readable(name)
        return self.raw(name).array()

    def read_many(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """As `read` of each; small ones that lie together come from the disk at once.

        Raises:
            FormatError: as `read`.
        """
        infos = [self._readable(name) for name in names]
        start = min((info.start for info in infos), default=0)
        span = max((info.start + info.size for info in infos), default=0) - start
        if span > min(TOGETHER, 2 * sum(info.size for info in infos)):
            return {name: self.read(name) for name in names}
        data = self._read(start, span)
        return {
            name: np.frombuffer(
                data, numpy_dtype(info.dtype), count=math.prod(info.shape), offset=info.start - start
            ).reshape(info.shape)
            for name, info in zip(names, infos, strict=True)
        }

    def _readable(self, name: str) -> TensorInfo:
        info = self.info(name)
        if info.dtype not in _NUMPY:
            what = f"{self.label} tensor {shown(name)}"
            raise FormatError(message(what, got=info.dtype, expected="a dtype of numpy", fix="convert it"))
        return info

    def digest(self) -> str:
        """The sha256 of the whole file, in hexadecimal."""
        state, at = hashlib.sha256(), 0
        while at < self.size:
            block = self._read(at, min(2**20, self.size - at))
            state.update(block)
            at += len(block)
        return state.hexdigest()

    def _read(self, start: int, size: int) -> bytes:
        parts, at = [], start
        while at < start + size:
            part = os.pread(self._fd, start + size - at, at)
            if not part:
                raise _broken(self.label, "the end of the file too early", "the whole file")
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _broken(label: str, got: str, expected: str) -> FormatError:
    return FormatError(message(label, got=got, expected=expected, fix="copy or write the file again"))


def _header(head: bytes, read: Any, size: int, label: str) -> Header:
    if len(head) < 8:
        raise _broken(label, f"{size} bytes (truncated)", "a safetensors file")
    length = int.from_bytes(head, "little")
    if length > HEADER_LIMIT or 8 + length > size:
        instead = stand_in(read(0, min(SIZE, size)))
        if instead is not None:
            raise FormatError(message(label, got=instead[0], expected="a safetensors file", fix=instead[1]))
        raise _broken(label, f"a header of {length} bytes in {size} (truncated?)", "a safetensors file")
    text = read(8, length)
    if length > KNOWN_LIMIT:
        return _parsed(text, size, label)
    try:
        return _known(text, size)
    except FormatError:
        return _parsed(text, size, label)


@functools.lru_cache(maxsize=16)
def _known(text: bytes, size: int) -> Header:
    """As `_parsed`: the adapters of one base model mostly have the same header, which is looked at once."""
    return _parsed(text, size, "")


def _parsed(text: bytes, size: int, label: str) -> Header:
    """The metadata and the tensors of a header, in a file of `size` bytes."""
    entries = parse_json(text, f"{label} header")
    length = len(text)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(label, "metadata that is not text", "a map of text to text")
    tensors = {name: _entry(name, value, 8 + length, label) for name, value in entries.items()}
    at = 8 + length
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if info.start != at:
            raise _broken(f"{label} tensor {shown(name)}", "a hole or an overlap before it", "data without holes")
        at += info.size
    if at != size:
        what = "truncated" if at > size else "bytes left over"
        raise _broken(label, f"{size} bytes ({what})", f"{at} bytes")
    return MappingProxyType(metadata), MappingProxyType(tensors)


def _entry(name: str, value: Any, base: int, label: str) -> TensorInfo:
    found = _problem(value)
    if found is not None:
        raise _broken(f"{label} tensor {shown(name)}", *found)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    return TensorInfo(dtype, tuple(shape), base + offsets[0], offsets[1] - offsets[0])


def _problem(value: Any) -> tuple[str, str] | None:
    """What a header entry has instead of what it should have."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        return "another header entry", "dtype, shape and data_offsets"
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        return f"dtype {shown(dtype, 40)}", "a known dtype"
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > 32:
        return "a shape or offsets that are no whole numbers", "whole numbers of at least 0"
    bits = math.prod(shape) * _BITS[dtype]
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        return f"{offsets[1] - offsets[0]} bytes", f"{bits // 8} for {dtype} {shape}"
    return None


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**48 for v in value)


def write_tensors(path: Path, tensors: Mapping[str, RawTensor | np.ndarray], metadata: Mapping[str, str]) -> str:
    """Writes a new safetensors file, flushed to the disk; returns its sha256 in hexadecimal.

    Tensors are laid down from the widest dtype to the narrowest, then by name, as the format advises.
    """
    raws = {name: t if isinstance(t, RawTensor) else raw_of(t) for name, t in tensors.items()}
    order = sorted(raws, key=lambda name: (-_BITS[raws[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in order:
        raw = raws[name]
        header[name] = {"dtype": raw.dtype, "shape": list(raw.shape), "data_offsets": [at, at + len(raw.data)]}
        at += len(raw.data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    state = hashlib.sha256()
    with open(path, "xb") as f:
        for block in (len(text).to_bytes(8, "little"), text, *(raws[name].data for name in order)):
            f.write(block)
            state.update(block)
    flush(path)
    return state.hexdigest()


@contextlib.contextmanager
def opened(
    folder: str | os.PathLike, name: str, digest: str | None = None, size: int | None = None
) -> Iterator[TensorFile]:
    """Opens a file of the folder, first checking its size in bytes and its sha256 when they are given.

    Raises:
        FormatError: see `TensorFile`, or the size or the checksum differs.
    """
    with TensorFile(folder, name) as file:
        if size is not None and file.size != size:
            raise FormatError(message(file.label, got=f"{file.size} bytes", expected=f"{size}", fix="restore the set"))
        if digest is not None and file.digest() != digest:
            raise _broken(file.label, "another checksum (damaged)", f"sha256 {digest[:12]}...")
        yield file
