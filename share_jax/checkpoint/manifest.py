"""The manifest: what a checkpoint folder holds, and for which model it holds it. Writing it is what commits a save.

It is written twice: `manifest.json` counts, `manifest.copy.json` is there for when that is damaged. Schemas: 1 had no
checksum and no copy, 2 no `router`; 3 had the two states in flight as `inflight` and `earlier`, and no checksums of the
base model's single leaves. All are read, and written anew as 4.
"""

from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from share_jax.adapted import AdaptedModel
from share_jax.checkpoint.arrays import Record
from share_jax.checkpoint.fingerprints import fingerprint
from share_jax.errors import FormatError, InputError, message
from share_jax.storage import lock
from share_jax.storage.atomic_write import is_partial, replace_bytes
from share_jax.storage.manifest_file import Content, ManifestKind, as_json, content_of, digest
from share_jax.trees import flat
from share_jax.typing import Tree

FILE = "manifest.json"
COPY = "manifest.copy.json"
FIX = "point to the folder of a run, or restore its manifest.json from a copy"


def _older(body: Content) -> Content | None:
    """The content of schemas 1 to 3, of which 1 needs no checksum."""
    content = content_of(body)
    if body.get("sha256") != digest(content) and (body["schema"] > 1 or "sha256" in body):
        return None
    states = [content.pop("earlier", None), content.pop("inflight", None)]
    return {"router": None, **content, "states": [state for state in states if state is not None]}


KIND = ManifestKind(4, FIX, older=dict.fromkeys((1, 2, 3), _older), nan=True)


STATES = ("the training in flight", "the earlier training in flight")
"""What a user would call the states in flight, the last one first."""


@dataclass(frozen=True)
class Identity:
    """For which model and adapters a checkpoint is; it must match to the letter when the checkpoint is opened.

    Attributes:
        model: the base model's name.
        fingerprint: sha256 over the base model's parameters; see `fingerprint`.
        method: name and static numbers of the parameterisation.
        targets: paths of the adapted kernels.
        heads: paths of the parameters that tasks own.
        dtype: dtype of the stored parameters.
        leaves: a checksum of each of the base model's parameters, to name the one that differs; empty in older
            manifests.
    """

    model: str
    fingerprint: str
    method: dict[str, Any]
    targets: tuple[str, ...]
    heads: tuple[str, ...]
    dtype: str = "float32"
    leaves: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder holds.

    Attributes:
        identity: the model and adapters.
        shared: record of the shared tree, None before the first task is done.
        version: how many versions of the shared tree have been written.
        tasks: a record by task name, in the order of learning; each with "info", the caller's JSON.
        states: records of the training in flight, the last state and the one before it, oldest first; each with "info".
        router: record of the task router, None if none is kept; with "tasks", the names of the tasks that it knows.
    """

    identity: Identity
    shared: Record | None = None
    version: int = 0
    tasks: dict[str, Record] = field(default_factory=dict)
    states: tuple[Record, ...] = ()
    router: Record | None = None

    @property
    def inflight(self) -> Record | None:
        """Record of the last state of the training in flight, None if there is none."""
        return self.states[-1] if self.states else None

    def records(self) -> dict[str, Record]:
        """Everything that is saved, by what a user would call it."""
        others: dict[str, Record | None] = {
            "the shared tree": self.shared,
            "the router": self.router,
            **dict(zip(STATES, reversed(self.states), strict=False)),
        }
        tasks = {f"task {name!r}": record for name, record in self.tasks.items()}
        return {**tasks, **{name: record for name, record in others.items() if record is not None}}


def identity_of(name: str, params: Tree, adapted: AdaptedModel) -> Identity:
    """The identity of an adapted model that has a method.

    Args:
        name: the base model's name.
        params: its parameters; those that tasks own are left out of the fingerprint.
        adapted: from `adapt`.
    """
    base = fingerprint({path: leaf for path, leaf in flat(params).items() if path not in adapted.heads})
    numbers = static_numbers(adapted.method)
    return Identity(
        model=name,
        fingerprint=base.whole,
        method={"name": getattr(adapted.method, "name", ""), **numbers},
        targets=tuple(target.path for target in adapted.targets),
        heads=adapted.heads,
        leaves=base.leaves,
    )


def static_numbers(method: Any) -> dict[str, Any]:
    """The fields of a parameterisation, which tell it from another of its name.

    Raises:
        InputError: if it is no dataclass, or a field cannot be stored as JSON.
    """
    fix = "make it a frozen dataclass of numbers and texts"
    if not is_dataclass(method):
        raise InputError(message("method to save", got=repr(method), expected="a dataclass", fix=fix))
    numbers = asdict(method)  # pyright: ignore[reportArgumentType]
    for name, value in numbers.items():
        try:
            as_json(value)
        except (TypeError, ValueError):
            got = type(value).__name__
            raise InputError(message(f"{name} of {method!r}", got=got, expected="what JSON holds", fix=fix)) from None
    return numbers


def _decoded(content: Content, source: str) -> Manifest:
    """The manifest that a file's content is.

    Raises:
        FormatError: if a field is missing, unexpected, or none of a manifest.
    """
    try:
        own = content["identity"]
        identity = replace(Identity(**own), targets=tuple(own["targets"]), heads=tuple(own["heads"]))
        fields = {name: content[name] for name in ("shared", "version", "tasks", "router")}
        return Manifest(identity=identity, states=tuple(content["states"]), **fields)
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
    return _decoded(KIND.read(path), str(path))


def commit(root: Path, manifest: Manifest) -> None:
    """Writes the manifest in one step: a reader, or a run after a kill, sees the old one or the new one.

    Raises:
        OSError: if it cannot be written.
    """
    KIND.write(asdict(manifest), root / FILE, root / COPY)


def settle(root: Path, manifest: Manifest) -> None:
    """Makes the manifest's files those of this schema, and alike, where a kill or an older program left them unlike.

    A copy that is damaged stays as it is, to be found and named.
    """
    data = KIND.encode(asdict(manifest))
    if (root / FILE).read_bytes() != data:
        replace_bytes(data, root / FILE)
    copy = root / COPY
    if not copy.exists() or (copy.read_bytes() != data and copy_damage(root) is None):
        replace_bytes(data, copy)


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
        FormatError: naming the first field that differs, and of the base model the first parameter.
    """
    have, wants = (as_json(asdict(identity)) for identity in (found, wanted))
    leaves, want_leaves = have.pop("leaves"), wants["leaves"]
    for name, got in have.items():
        what, expected = f"checkpoint's {name}", wants[name]
        if got == expected:
            continue
        other = [path for path in sorted(leaves | want_leaves) if leaves.get(path) != want_leaves.get(path)]
        if name == "fingerprint" and leaves and want_leaves and other:
            what += f" of {other[0]}" + (f" (and {len(other) - 1} more)" if len(other) > 1 else "")
            got, expected = leaves.get(other[0], "no such leaf"), want_leaves.get(other[0], "no such leaf")
        fix = "open it with the model and configuration that it was made with, or take another folder"
        raise FormatError(message(what, got=got, expected=expected, fix=fix))


def check_free(root: Path) -> None:
    """Refuses a place for a new checkpoint where something is; a lock, and what a kill left of one, do not count.

    Raises:
        FormatError: if it holds anything.
    """
    expected, fix = "an empty folder, or none", "open it if it is a checkpoint, or take another folder"
    got = "a file" if root.exists() and not root.is_dir() else ""
    if root.is_dir() and {path.name for path in root.iterdir()} - leftovers(root) - lock.FILES:
        got = "a folder with content"
    if got:
        raise FormatError(message(f"checkpoint folder {root}", got=got, expected=expected, fix=fix))
