"""What stands before the tensors in a GGUF file: metadata, and where each tensor lies.

The `gguf` package reads a vocabulary string by string through a memory map, which takes seconds; this takes a tenth of
one. The tensors' values are left to that package.

Source: `docs/gguf.md` of ggml, for versions 2 and 3, little-endian.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, message

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies.

    Attributes:
        shape: axes as NumPy has them, the longest stride first.
        kind: number of its type, a `gguf.GGMLQuantizationType`.
        start: bytes from the beginning of the file.
    """

    shape: tuple[int, ...]
    kind: int
    start: int


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, TensorPlace]]:
    """Metadata by key, and tensors by name.

    Raises:
        FormatError: the file cannot be read, or is no whole GGUF file of version 2 or 3.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (OSError, ValueError, struct.error, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(message(str(path), got=reason, expected="a GGUF file", fix="fetch it again")) from error


class _Reader:
    """Goes through the bytes once."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at, self.size = data, 0, len(data)

    def header(self) -> tuple[dict[str, Any], dict[str, TensorPlace]]:
        if self.data[:4] != b"GGUF":
            raise ValueError("no GGUF mark")
        self.at = 4
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        tensors, entries = self.number("Q"), self.number("Q")
        metadata = {}
        for _ in range(self.count(entries, 12)):
            key = self.text()
            metadata[key] = self.value(self.number("I"))
        found = []
        for _ in range(self.count(tensors, 24)):
            name, axes = self.text(), self.number("I")
            shape = tuple(reversed(self.numbers("Q", axes)))
            found.append((name, shape, self.number("I"), self.number("Q")))
        step = metadata.get("general.alignment", 32)
        first = -(-self.at // step) * step
        return metadata, {name: TensorPlace(shape, kind, first + start) for name, shape, kind, start in found}

    def count(self, several: int, least: int) -> int:
        """A count of things that take so many bytes at least, if the file can hold them."""
        if several * least > self.size - self.at:
            raise ValueError("a file that is cut short")
        return several

    def number(self, form: str) -> Any:
        return self.numbers(form, 1)[0]

    def numbers(self, form: str, several: int) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{form}")
        self.count(several, size)
        out = struct.unpack_from(f"<{several}{form}", self.data, self.at)
        self.at += size * several
        return out

    def text(self) -> str:
        length = self.count(self.number("Q"), 1)
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_NUMBERS[kind])
        inner, several = self.number("I"), self.number("Q")
        if inner in _NUMBERS:
            return list(self.numbers(_NUMBERS[inner], several))
        one: Callable[[], Any] = self.text if inner == _STRING else lambda: self.value(inner)
        return [one() for _ in range(self.count(several, 8))]
