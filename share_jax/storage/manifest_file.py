"""Manifests: small JSON files that say what a folder holds, and that nobody can change unnoticed.

A manifest is a JSON object with its schema's number, a checksum of everything else in it, and its content:

    {"format": ..., "schema": 4, "sha256": ..., "tasks": ..., ...}

`format` is there only for a kind that names one. A manifest replaces the old one in one step, so that a kill leaves the
old or the new; it may be written twice, for when one is damaged.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.storage.atomic_write import replace_bytes
from share_jax.storage.untrusted import shown, strict_json

Content = dict[str, Any]

_ENVELOPE = ("format", "schema", "sha256")


@dataclass(frozen=True)
class ManifestKind:
    """One kind of manifest.

    Attributes:
        schema: the schema that is written, a whole number of at least 1.
        fix: what a user does about a damaged one, for messages.
        format: the kind's name in the file, None if it has none.
        older: by older schema, what makes today's content of the whole object; it returns None where the object's
            checksum is not that of its content. Files without a schema number count as 0.
        nan: whether NaN and infinities are read.
    """

    schema: int
    fix: str
    format: str | None = None
    older: Mapping[int, Callable[[Content], Content | None]] = field(default_factory=dict)
    nan: bool = False

    def encode(self, content: Mapping[str, Any]) -> bytes:
        """The file's bytes.

        Raises:
            TypeError: if the content cannot be stored as JSON.
            ValueError: likewise.
        """
        named = {} if self.format is None else {"format": self.format}
        body = {**named, "schema": self.schema, **as_json(content)}
        sealed = {**named, "schema": self.schema, "sha256": digest(body), **body}
        return json.dumps(sealed, indent=1).encode()

    def decode(self, data: bytes, source: str) -> Content:
        """The content of a file's bytes, of this schema or an older one.

        Args:
            data: the bytes.
            source: the file, for messages.

        Raises:
            FormatError: if they are no manifest, of another kind, damaged, or of a newer schema.
        """
        try:
            body = strict_json(data, nan=self.nan)
        except ValueError as error:
            raise self._refused(source, shown(error), "a JSON manifest") from error
        body = body if isinstance(body, dict) else {}
        if self.format is not None and body.get("format") != self.format:
            raise self._refused(f"{source} format", shown(repr(body.get("format")), 60), repr(self.format))
        schema = body.get("schema", 0)
        if "schema" not in body and 0 not in self.older:
            raise self._refused(source, "no schema number", f"schema {self.schema}")
        if type(schema) is not int or schema not in (*self.older, self.schema):
            newer = type(schema) is int and schema > self.schema
            fix = "update share_jax" if newer else self.fix
            got, expected = shown(schema, 60), f"at most {self.schema}"
            raise FormatError(message(f"{source}: schema", got=got, expected=expected, fix=fix))
        content = self.older.get(schema, _opened)(body)
        if content is None:
            raise self._refused(source, "other content", "the content that was saved, by its checksum")
        return content

    def write(self, content: Mapping[str, Any], *paths: Path) -> None:
        """Writes a manifest, and copies of it, each in one step; all files are of one folder.

        Raises:
            OSError: if it cannot be written; the old ones stay.
        """
        replace_bytes(self.encode(content), *paths)

    def read(self, path: Path) -> Content:
        """The content of a file.

        Raises:
            FormatError: if it is missing, or see `decode`.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            got = "no file" if isinstance(error, FileNotFoundError) else error.strerror
            raise self._refused(str(path), got, "a manifest") from error
        return self.decode(data, str(path))

    def _refused(self, what: str, got: object, expected: str) -> FormatError:
        return FormatError(message(what, got=got, expected=expected, fix=self.fix))


def content_of(body: Content) -> Content:
    """The object without what every manifest has: format, schema number and checksum."""
    return {name: value for name, value in body.items() if name not in _ENVELOPE}


def digest(body: Any, **options: Any) -> str:
    """sha256 of a JSON value, written with sorted keys and the options of `json.dumps`, in hexadecimal."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, **options).encode()).hexdigest()


def as_json(value: Any) -> Any:
    """What JSON gives back of a value: lists of tuples, texts of keys, Python's numbers of NumPy's.

    Raises:
        TypeError: if it cannot be stored as JSON.
        ValueError: likewise.

    >>> as_json({1: (np.int64(2), 0.5)})
    {'1': [2, 0.5]}
    """
    return json.loads(json.dumps(value, default=_number))


def _opened(body: Content) -> Content | None:
    sealed = {name: value for name, value in body.items() if name != "sha256"}
    return content_of(body) if body.get("sha256") == digest(sealed) else None


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
