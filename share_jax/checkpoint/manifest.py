"""The manifest: what a checkpoint folder holds, and for which model it holds it. Writing it is what commits a save.

It carries a checksum of itself, and is written twice: `manifest.json` counts, `manifest.copy.json` is there for when
that is damaged. Schemas: 1 had neither the checksum nor the copy nor `earlier`, and 2 had no `router`; both are read,
and written anew as 3.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from share_jax.adapted import AdaptedModel
from share_jax.checkpoint.arrays import Record
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.atomic_write import is_partial, replace_text
from share_jax.trees import flat
from share_jax.typing import Tree

SCHEMA = 3
FILE = "manifest.json"
COPY = "manifest.copy.json"
FIX = "point to the folder of a run, or restore its manifest.json from a copy"


@dataclass(frozen=True)
class Identity:
    """For which model and adapters a checkpoint is; it must match to the letter when the checkpoint is opened.

    Attributes:
      model: the base model's name.
      fingerprint: sha256 over the base model's parameters.
      method: name and static numbers of the parameterisation.
      targets: paths of the adapted kernels.
      heads: paths of the parameters that tasks own.
      dtype: dtype of the stored parameters.
    """

    model: str
    fingerprint: str
    method: dict[str, Any]
    targets: tuple[str, ...]
    heads: tuple[str, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder holds.

    Attributes:
      identity: the model and adapters.
      shared: record of the shared tree, None before the first task is done.
      version: how many versions of the shared tree have been written.
      tasks: a record by task name, in the order of learning; each with "info", the caller's JSON.
      inflight: record of the training in flight, or None; with "info".
      earlier: the one before it, kept until the task is done: for when the last one is damaged.
      router: record of the task router, None if none is kept; with "tasks", the names of the tasks that it knows.
    """

    identity: Identity
    shared: Record | None = None
    version: int = 0
    tasks: dict[str, Record] = field(default_factory=dict)
    inflight: Record | None = None
    earlier: Record | None = None
    router: Record | None = None

    def records(self) -> dict[str, Record]:
        """Everything that is saved, by what a user would call it."""
        others = {
            "the shared tree": self.shared,
            "the router": self.router,
            "the training in flight": self.inflight,
            "the earlier training in flight": self.earlier,
        }
        tasks = {f"task {name!r}": record for name, record in self.tasks.items()}
        return {**tasks, **{name: record for name, record in others.items() if record is not None}}


def fingerprint(params: Tree) -> str:
    """sha256 over every parameter's path, shape, dtype and bytes."""
    whole = hashlib.sha256()
    for path, leaf in flat(params).items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        whole.update(f"{path} {array.shape} {array.dtype}\n".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def identity_of(name: str, params: Tree, adapted: AdaptedModel) -> Identity:
    """The identity of an adapted model that has a method.

    Args:
      name: the base model's name.
      params: its parameters; those that tasks own are left out of the fingerprint.
      adapted: from `adapt`.
    """
    base = {path: leaf for path, leaf in flat(params).items() if path not in adapted.heads}
    numbers = static_numbers(adapted.method)
    return Identity(
        model=name,
        fingerprint=fingerprint(base),
        method={"name": getattr(adapted.method, "name", ""), **numbers},
        targets=tuple(target.path for target in adapted.targets),
        heads=adapted.heads,
    )


def static_numbers(method: Any) -> dict[str, Any]:
    """The fields of a parameterisation, which tell it from another of its name.

    Raises:
      InputError: if it is no dataclass, or a field is nothing that JSON holds.
    """
    fix = "make it a frozen dataclass of numbers and texts"
    if not is_dataclass(method):
        raise InputError(message("method to save", got=repr(method), expected="a dataclass", fix=fix))
    numbers = asdict(method)  # pyright: ignore[reportArgumentType]
    for name, value in numbers.items():
        try:
            _as_read(value)
        except (TypeError, ValueError):
            got = type(value).__name__
            raise InputError(message(f"{name} of {method!r}", got=got, expected="what JSON holds", fix=fix)) from None
    return numbers


def _as_read(value: Any) -> Any:
    """What JSON gives back of a value: lists of tuples, texts of keys, Python's numbers of NumPy's."""
    return json.loads(json.dumps(value, default=_number))


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is nothing that JSON holds")


def to_json(manifest: Manifest) -> dict[str, Any]:
    """As plain JSON, with the schema's version and a checksum of the rest first."""
    content = _as_read(asdict(manifest))
    return {"schema": SCHEMA, "sha256": _digest(content), **content}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def from_json(content: Any, source: str) -> Manifest:
    """The inverse of `to_json`; also reads older schemas.

    Raises:
      FormatError: if it is not a manifest, is damaged, or is of a newer schema.
    """
    if not isinstance(content, Mapping) or "schema" not in content:
        raise FormatError(message(source, got="no schema number", expected=f"schema {SCHEMA}", fix=FIX))
    schema = content["schema"]
    if not isinstance(schema, int) or isinstance(schema, bool) or not 1 <= schema <= SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        fix = "update share_jax" if newer else FIX
        raise FormatError(message(f"{source}: schema", got=schema, expected=f"at most {SCHEMA}", fix=fix))
    rest = {name: value for name, value in content.items() if name not in ("schema", "sha256")}
    if (schema >= 2 or "sha256" in content) and content.get("sha256") != _digest(rest):
        raise FormatError(message(source, got="other content", expected="the content that was saved", fix=FIX))
    rest = {**{"earlier": None}, **rest} if schema < 2 else rest
    rest = {**rest, "router": None} if schema < 3 else rest
    try:
        own = rest["identity"]
        identity = replace(Identity(**own), targets=tuple(own["targets"]), heads=tuple(own["heads"]))
        fields = {name: rest[name] for name in ("shared", "version", "tasks", "inflight", "earlier", "router")}
        return Manifest(identity=identity, **fields)
    except (KeyError, TypeError) as error:
        raise FormatError(message(source, got=f"no or wrong {error}", expected="a manifest", fix=FIX)) from error


def exists(root: Path) -> bool:
    """Whether a folder holds a checkpoint, be it a damaged one."""
    return (root / FILE).exists() or (root / COPY).exists()


def read(root: Path, file: str = FILE) -> Manifest:
    """Reads the manifest of a checkpoint folder, or its copy.

    Raises:
      FormatError: if it is missing or damaged.
    """
    path = root / file
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        got = "no file" if isinstance(error, FileNotFoundError) else error.strerror
        raise FormatError(message(str(path), got=got, expected="a manifest", fix=FIX)) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(message(str(path), got=error, expected="a JSON manifest", fix=FIX)) from error
    return from_json(content, str(path))


def commit(root: Path, manifest: Manifest) -> None:
    """Writes the manifest in one step: a reader, or a run after a kill, sees the old one or the new one.

    Raises:
      OSError: if it cannot be written.
    """
    text = json.dumps(to_json(manifest), indent=1)
    replace_text(text, root / FILE, root / COPY)


def settle(root: Path, manifest: Manifest) -> None:
    """Makes the manifest's files those of this schema, and alike, where a kill or an older program left them unlike.

    A copy that is damaged stays as it is, to be found and named.
    """
    text = json.dumps(to_json(manifest), indent=1)
    if (root / FILE).read_text(encoding="utf-8") != text:
        replace_text(text, root / FILE)
    copy = root / COPY
    if not copy.exists() or (copy.read_bytes() != text.encode() and copy_damage(root) is None):
        replace_text(text, copy)


def copy_damage(root: Path) -> str | None:
    """What is wrong with the manifest's copy, None if nothing is."""
    try:
        read(root, COPY)
    except FormatError as error:
        return str(error)
    return None


def leftovers(root: Path) -> set[str]:
    """Names of files in the folder that a kill left while a manifest was written."""
    return {path.name for path in root.iterdir() if is_partial(path.name, FILE, COPY)}


def check_identity(found: Identity, wanted: Identity) -> None:
    """Refuses a checkpoint of another model, method or choice of targets.

    Raises:
      FormatError: naming the first field that differs.
    """
    have, wants = (_as_read(asdict(identity)) for identity in (found, wanted))
    for name, value in have.items():
        want = wants[name]
        if value != want:
            raise FormatError(
                message(
                    f"checkpoint's {name}",
                    got=value,
                    expected=want,
                    fix="open it with the model and configuration that it was made with, or take another folder",
                )
            )
