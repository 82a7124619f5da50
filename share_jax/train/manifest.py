"""The manifest: what a checkpoint folder holds, and for which model it holds it. Writing it is what commits a save."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from share_jax.errors import FormatError, line
from share_jax.nn.adapt import Adapted
from share_jax.nn.trees import flat
from share_jax.train.arrays_io import Record
from share_jax.typing import Tree

SCHEMA = 1
FILE = "manifest.json"


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
    """

    identity: Identity
    shared: Record | None = None
    version: int = 0
    tasks: dict[str, Record] = field(default_factory=dict)
    inflight: Record | None = None


def fingerprint(params: Tree) -> str:
    """sha256 over every parameter's path, shape, dtype and bytes."""
    whole = hashlib.sha256()
    for path, leaf in flat(params).items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        whole.update(f"{path} {array.shape} {array.dtype}\n".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def identity_of(name: str, params: Tree, adapted: Adapted) -> Identity:
    """The identity of an adapted model.

    Args:
      name: the base model's name.
      params: its parameters; those that tasks own are left out of the fingerprint.
      adapted: from `adapt`.
    """
    base = {path: leaf for path, leaf in flat(params).items() if path not in adapted.heads}
    numbers = asdict(adapted.method)  # pyright: ignore[reportArgumentType]
    return Identity(
        model=name,
        fingerprint=fingerprint(base),
        method={"name": adapted.method.name, **numbers},
        targets=tuple(target.path for target in adapted.targets),
        heads=adapted.heads,
    )


def to_json(manifest: Manifest) -> dict[str, Any]:
    """As plain JSON, with the schema's version first."""
    return {"schema": SCHEMA, **asdict(manifest)}


def from_json(content: Any, source: str) -> Manifest:
    """The inverse of `to_json`.

    Raises:
      FormatError: if it is not a manifest, or is of another schema.
    """
    mend = "point to the folder of a run, or restore its manifest.json from a copy"
    if not isinstance(content, Mapping) or "schema" not in content:
        raise FormatError(line(source, got="no schema number", expected=f"schema {SCHEMA}", mend=mend))
    if content["schema"] != SCHEMA:
        newer = "update share_jax" if str(content["schema"]) > str(SCHEMA) else mend
        raise FormatError(line(f"{source}: schema", got=content["schema"], expected=SCHEMA, mend=newer))
    try:
        own = content["identity"]
        identity = replace(Identity(**own), targets=tuple(own["targets"]), heads=tuple(own["heads"]))
        rest = {name: content[name] for name in ("shared", "version", "tasks", "inflight")}
        return Manifest(identity=identity, **rest)
    except (KeyError, TypeError) as error:
        raise FormatError(line(source, got=f"no or wrong {error}", expected="a manifest", mend=mend)) from error


def read(root: Path) -> Manifest:
    """Reads the manifest of a checkpoint folder.

    Raises:
      FormatError: if it is missing or damaged.
    """
    path = root / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        mend = "point to the folder of a run, or restore its manifest.json from a copy"
        raise FormatError(line(str(path), got=error, expected="a JSON manifest", mend=mend)) from error
    return from_json(content, FILE)


def commit(root: Path, manifest: Manifest) -> None:
    """Writes the manifest in one step: a reader, or a run after a kill, sees the old one or the new one."""
    partial = root / f".{FILE}.tmp"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(to_json(manifest), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(root / FILE)


def check_identity(found: Identity, wanted: Identity) -> None:
    """Refuses a checkpoint of another model, method or choice of targets.

    Raises:
      FormatError: naming the first field that differs.
    """
    for name, value in asdict(found).items():
        want = asdict(wanted)[name]
        if value != want:
            raise FormatError(
                line(
                    f"checkpoint's {name}",
                    got=value,
                    expected=want,
                    mend="open it with the model and configuration that it was made with, or take another folder",
                )
            )
