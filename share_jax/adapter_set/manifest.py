"""The manifest of a compressed set: `manifest.json`, schema 2, checked before anything else is read.

It names the files with their sizes and sha256, the base model, each layer's shape and number of basis columns,
and each task's configuration. A base model is named as its adapters name it, a snapshot of a cache by its repository.
Schema 1 named the file of a task's uncompressed tensors in the task's entry, and had a checksum of another text; it is
read, and the next change of the set writes schema 2.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from share_jax.errors import FormatError, ShareError, message
from share_jax.formats.pair_layouts import is_form
from share_jax.formats.peft_config import parse_config
from share_jax.storage.atomic_write import is_partial
from share_jax.storage.manifest_file import Content, ManifestKind, digest
from share_jax.storage.untrusted import TEMP_MARK, check_task_name, exists_inside, read_small, shown

NAME = "manifest.json"
FIX = "restore the set or compress again"
FILE_NAME = re.compile(r"(basis|coefficients|extra)-[0-9a-f]{16}\.safetensors")
STORAGES = ("f32", "bf16", "int8")
GEOMETRIES = ("columns", "flat")


@dataclass(frozen=True)
class LayerEntry:
    """One layer's sizes."""

    d_in: int
    d_out: int
    geometry: Any  # "columns" or "flat"
    num_basis: tuple[int, int]  # columns of basis_a and of basis_b
    pseudo_rank: int  # the widest task's; in "flat" the columns folded into the rows


@dataclass(frozen=True)
class TaskEntry:
    """What is known of one task beside its coefficients.

    Example:
        >>> entry = read_manifest("set").tasks["cola"]
        >>> entry.dtype, entry.measured, entry.relative_error < 1e-3
        ('f32', True, True)
    """

    config: str  # id within `configs`
    metadata: Mapping[str, str]  # of its safetensors file
    dtype: str  # of its factors at export: f32, bf16 or f16
    bytes_in: int  # of the files that held it
    lora_bytes: int  # of its factors in them
    cut: float  # what the pseudo rank took away, relative to the original's norm
    relative_error: float  # of the whole update against the original
    measured: bool  # false once a merge has moved the task: the error is then an estimate below the bound


@dataclass(frozen=True)
class Settings:
    """How a set compresses what is added to it, and for which base model."""

    base_model: str | None
    storage: str
    geometry: str
    choice: Mapping[str, Any]  # how k is chosen when tasks are added
    limit: float | None  # no task's error bound may pass it
    pseudo_rank: int | None  # adapters are cut to it before they are compressed


@dataclass(frozen=True)
class Manifest(Settings):
    """All of `manifest.json`.

    Example:
        >>> manifest = read_manifest("set")
        >>> manifest.storage, list(manifest.tasks)
        ('f32', ['cola', 'rte'])
    """

    layers: Mapping[str, LayerEntry]
    tasks: Mapping[str, TaskEntry]
    configs: Mapping[str, Mapping[str, Any]]
    basis: str  # file
    coefficients: str  # file
    extras: Mapping[str, str]  # task -> file of the tensors that were not compressed; no entry if there are none
    files: Mapping[str, Mapping[str, Any]]  # name -> {"bytes", "sha256"}
    forms: Mapping[str, str] = field(
        default_factory=dict
    )  # layer -> its form in files, where it is no pair of matrices

    def settings(self, **changes: Any) -> Settings:
        """The set's settings, with some of them changed."""
        own = Settings(**{each.name: getattr(self, each.name) for each in fields(Settings)})
        return replace(own, **changes)


def _of_schema_1(body: Content) -> Content | None:
    named = {name: value for name, value in body.items() if name != "checksum"}
    if body.get("checksum") != digest(named, separators=(",", ":"), ensure_ascii=False):
        return None
    content = {name: value for name, value in named.items() if name not in ("format", "schema")}
    tasks = content.get("tasks")
    if not isinstance(tasks, dict) or not all(isinstance(entry, dict) for entry in tasks.values()):
        return content  # refused when it is decoded
    extras = {name: entry.pop("extra", None) for name, entry in tasks.items()}
    return {**content, "extras": {name: file for name, file in extras.items() if file is not None}}


KIND = ManifestKind(2, FIX, format="share_jax adapter set", older={1: _of_schema_1})


def encode(manifest: Manifest) -> bytes:
    """The manifest as `manifest.json` holds it, with a checksum of itself."""
    return KIND.encode(asdict(manifest))


def is_set(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like a set's, be it damaged.

    Example:
        >>> is_set("set"), is_set("cola")
        (True, False)
    """
    return exists_inside(folder, NAME) and any(FILE_NAME.fullmatch(name) for name in os.listdir(folder))


def is_whole_set(folder: str | os.PathLike) -> bool:
    """Whether the folder is a set's and holds nothing else, so that it may be replaced as one.

    Example:
        >>> is_whole_set("set"), is_whole_set("cola")
        (True, False)
    """
    known = {NAME, ".DS_Store"}
    return is_set(folder) and all(name in known or is_leftover(name) for name in os.listdir(folder))


def is_leftover(name: str) -> bool:
    """Whether a name is one of a set's files: one that the manifest does not name was left by a kill.

    >>> is_leftover("basis-0123456789abcdef.safetensors"), is_leftover("weights.safetensors")
    (True, False)
    """
    return name.startswith(TEMP_MARK) or is_partial(name, NAME) or FILE_NAME.fullmatch(name) is not None


def read_manifest(folder: Any) -> Manifest:
    """Reads and checks the manifest of a set.

    Raises:
        FormatError: it is missing, damaged, of a newer schema, or of something else.

    Example:
        >>> read_manifest("set").base_model
        'acme/tiny'
        >>> read_manifest("cola")
        Traceback (most recent call last):
        share_jax.errors.FormatError: set cola: got no manifest.json, expected a compressed set; make one: ...
    """
    if not exists_inside(folder, NAME):
        raise FormatError(
            message(
                f"set {shown(folder)}",
                got=f"no {NAME}",
                expected="a compressed set",
                fix="make one: share-jax compress",
            )
        )
    content = KIND.decode(read_small(folder, NAME), NAME)
    try:
        return _decode(content)
    except ShareError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as e:
        raise _bad("contents", shown(f"{type(e).__name__} {e}", 80), "those of a set") from None


def _decode(body: dict[str, Any]) -> Manifest:
    layers = {}
    for name, entry in body.pop("layers").items():
        k_a, k_b = entry.pop("num_basis")
        layer = layers[name] = LayerEntry(**entry, num_basis=(k_a, k_b))
        sizes = (layer.d_in, layer.d_out, layer.pseudo_rank, k_a, k_b)
        _check(name.isprintable() and all(_count(n) for n in sizes), f"layer {name}", sizes)
        _check(layer.geometry in GEOMETRIES and min(layer.d_in, layer.d_out) > 0, f"layer {name}", layer.geometry)
    tasks = {check_task_name(name): TaskEntry(**entry) for name, entry in body.pop("tasks").items()}
    manifest = Manifest(**body, layers=layers, tasks=tasks)
    _check(isinstance(manifest.configs, dict), "configs", manifest.configs)
    _check(set(manifest.extras) <= set(tasks) and all(map(_text, manifest.extras.values())), "extras", manifest.extras)
    _check(isinstance(manifest.forms, dict) and set(manifest.forms) <= set(layers), "forms", manifest.forms)
    _check(all(map(is_form, manifest.forms.values())), "forms", manifest.forms)
    for name, task in tasks.items():
        _check_task(name, task, manifest.configs)
    used = {manifest.basis, manifest.coefficients, *manifest.extras.values()}
    _check(used == set(manifest.files) and all(FILE_NAME.fullmatch(name) for name in used), "files", sorted(used))
    for name, entry in manifest.files.items():
        _check(set(entry) == {"bytes", "sha256"} and _count(entry["bytes"]) and _text(entry["sha256"]), name, entry)
    _check(manifest.storage in STORAGES, "storage", manifest.storage)
    _check(manifest.geometry in (*GEOMETRIES, "auto"), "geometry", manifest.geometry)
    _check(manifest.base_model is None or _text(manifest.base_model), "base_model", manifest.base_model)
    _check(manifest.limit is None or _number(manifest.limit), "limit", manifest.limit)
    rank, choice = manifest.pseudo_rank, manifest.choice
    _check(rank is None or (_count(rank) and rank > 0), "pseudo_rank", rank)
    known = {"k", "explained_variance", "max_error"}
    _check(set(choice) <= known and len(choice) <= 1 and all(_number(x) for x in choice.values()), "choice", choice)
    return manifest


def _check_task(name: str, task: TaskEntry, configs: Mapping[str, Any]) -> None:
    where = f"task {name}"
    _check(_text(task.config) and isinstance(configs.get(task.config), dict), f"{where} config", task.config)
    parse_config(configs[task.config], f"{NAME} {shown(where)} config:")
    pairs = task.metadata.items()
    _check(all(_text(v) for _, v in pairs) and "__metadata__" not in task.metadata, f"{where} metadata", task.metadata)
    _check(task.dtype in ("f32", "bf16", "f16"), f"{where} dtype", task.dtype)
    _check(_count(task.bytes_in) and _count(task.lora_bytes), f"{where} bytes", (task.bytes_in, task.lora_bytes))
    _check(_number(task.cut) and _number(task.relative_error), f"{where} errors", (task.cut, task.relative_error))
    _check(isinstance(task.measured, bool), f"{where} measured", task.measured)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e30


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _check(good: bool, what: str, got: object) -> None:
    if not good:
        raise _bad(shown(what), shown(repr(got), 80), "what a set holds")


def _bad(what: str, got: str, expected: str) -> FormatError:
    return FormatError(message(f"{NAME} {what}", got=got, expected=expected, fix=FIX))
