"""Checkpoints of a stream of tasks: what is shared once per version, one per task, one for the training in flight.

    ROOT/manifest.json       what is there, for which model, with checksums; manifest.copy.json beside it
    ROOT/shared/VERSION/     Orbax
    ROOT/tasks/SLOT.VERSION/ Orbax: adapter slot and head of one task
    ROOT/inflight/STEP/      Orbax's CheckpointManager: optimizer, key, step and trained leaves; the last two are kept
    ROOT/router/VERSION/     Orbax: the task router's statistics (see `checkpoint.router`), where one is kept

Every save writes a new folder first and then replaces the manifest, which is what makes it count. A kill at any moment
leaves the last committed state; folders that no manifest names are removed when the checkpoint is opened. One run at a
time may save: hold the folder with `lock.hold`.

On several processes all call the same functions with the same arguments: Orbax writes what each of them holds, the
first process alone writes manifests and removes folders. The root must be one file system to all of them.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from share_jax.bank.router import Router
from share_jax.checkpoint import arrays, before_saving, inflight_steps, manifest
from share_jax.checkpoint import router as router_files
from share_jax.checkpoint.manifest import Identity, Manifest
from share_jax.errors import FormatError, SaveError, ShareError, TaskError, message
from share_jax.runtime.processes import on_primary, primary
from share_jax.storage.atomic_write import reason

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint folder. Saving returns a new record; the old one must not be used after it.

    Attributes:
        root: the folder.
        manifest: what it holds.

    Example:
        >>> store = open_checkpoint("saved")
        >>> store.names, store.info("cola")
        (('cola',), {'accuracy': 0.8})
    """

    root: Path
    manifest: Manifest

    @property
    def names(self) -> tuple[str, ...]:
        """The saved tasks, in the order of learning."""
        return tuple(self.manifest.tasks)

    def info(self, name: str) -> dict[str, Any]:
        """What was noted beside a task.

        Raises:
            TaskError: if the task is not saved.
        """
        return self.record(name)["info"]

    def record(self, name: str) -> arrays.Record:
        """What the manifest says of a task.

        Raises:
            TaskError: if the task is not saved.
        """
        if name not in self.manifest.tasks:
            raise TaskError(message("task", got=repr(name), expected=f"one of {self.names}", fix="check the name"))
        return self.manifest.tasks[name]


def create(root: str | os.PathLike[str], identity: Identity) -> Checkpoint:
    """A new, empty checkpoint.

    Args:
        root: a folder that is empty, or not there.
        identity: for which model and adapters it is.

    Raises:
        FormatError: if the folder holds anything; a lock that is held, or was, does not count.
        SaveError: if it cannot be written.

    Example:
        >>> from share_jax.checkpoint.manifest import Identity
        >>> store = create("new", Identity("bert", "0" * 64, {"name": "shared_a"}, ("ffn/kernel",), ()))
        >>> create("new", store.manifest.identity)
        Traceback (most recent call last):
        share_jax.errors.FormatError: checkpoint folder new: got a folder with content, expected ...
    """
    root = Path(root)
    made = Checkpoint(root, Manifest(identity))

    def write() -> None:
        manifest.check_free(root)
        root.mkdir(parents=True, exist_ok=True)
        manifest.commit(root, made.manifest)

    with _saving(made, "the checkpoint"):
        on_primary(f"checkpoint folder {root}", write)
    return made


def open_checkpoint(root: str | os.PathLike[str], identity: Identity | None = None) -> Checkpoint:
    """Opens a checkpoint.

    With an identity, as for going on with it, what an interrupted save left behind is removed. A manifest of an older
    schema is then written as this one; arrays of older checkpoints are read as they are.
    Damage of arrays is found when they are loaded, or all at once by `find_damage`.

    Args:
        root: the folder.
        identity: what it must be for; not checked when None, as for a look at its content, and then nothing is written.

    Raises:
        FormatError: if it is not a checkpoint, its manifest is damaged or newer, or it is for another model.
        SaveError: if it cannot be written.

    Example:
        >>> open_checkpoint("saved").names
        ('cola',)
    """
    root = Path(root)
    found = manifest.read(root)
    opened = Checkpoint(root, replace(found, states=inflight_steps.existing_records(root, found.states)))
    if identity is not None:
        manifest.check_identity(opened.manifest.identity, identity)

        def settle() -> None:
            manifest.settle(root, opened.manifest)
            _sweep(opened)

        with _saving(opened, "the manifest"):
            on_primary(f"checkpoint folder {root}", settle)
    return opened


def _sweep(checkpoint: Checkpoint) -> None:
    for name in manifest.leftovers(checkpoint.root):
        (checkpoint.root / name).unlink(missing_ok=True)
    named = {record["path"] for record in checkpoint.manifest.records().values()}
    for kind in ("shared", "tasks", inflight_steps.FOLDER, "router"):
        folder = checkpoint.root / kind
        for entry in folder.iterdir() if folder.exists() else ():
            if f"{kind}/{entry.name}" not in named and entry.is_dir():  # a file is nobody's of ours, as Finder's
                shutil.rmtree(entry)


@contextmanager
def _saving(checkpoint: Checkpoint, what: str) -> Iterator[None]:
    """All of a save or nothing of it: when it fails, what it wrote is removed, and the error is one line."""
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many types
        if primary():
            with suppress(OSError):
                _sweep(checkpoint)
        if isinstance(error, ShareError):
            raise
        kept = f"go on from the last saved state, which is kept in {checkpoint.root}"
        if arrays.of_the_disk(error):
            got, expected, fix = reason(error), "room and the right to write", f"free or add space, then {kept}"
        else:
            got, expected = f"{type(error).__name__}: {reason(error)}", "nested dicts of arrays, and JSON"
            fix = f"fix what is saved, then {kept}"
        raise SaveError(message(f"saving {what}", got=got, expected=expected, fix=fix)) from error


def committed(checkpoint: Checkpoint, new: Manifest) -> Checkpoint:
    """The checkpoint with another manifest; folders that only the old one names are removed after the commit."""
    before = checkpoint.manifest.records().values()
    after = {record["path"] for record in new.records().values()}

    def commit() -> None:
        manifest.commit(checkpoint.root, new)
        for record in before:
            if record["path"] not in after:
                shutil.rmtree(checkpoint.root / record["path"], ignore_errors=True)  # swept at the next opening

    on_primary("manifest", commit)
    return replace(checkpoint, manifest=new)


def save_inflight(checkpoint: Checkpoint, state: Mapping[str, Any], info: Json) -> Checkpoint:
    """Saves the training in flight; the state saved before it is kept beside it, older ones are removed.

    Args:
        checkpoint: the open checkpoint.
        state: nested dict of arrays.
        info: JSON beside it, such as the task's index and step.

    Raises:
        InputError: if the info is no JSON.
        SaveError: if it cannot be written; the last state stays.

    Example:
        >>> import numpy as np
        >>> store = open_checkpoint("saved")
        >>> store = save_inflight(store, {"lora_b": np.ones((2, 3))}, {"task": "rte", "step": 40})
        >>> store.manifest.inflight["info"]
        {'task': 'rte', 'step': 40}
    """
    own = before_saving.as_json(info, "the training in flight")
    with _saving(checkpoint, "the training in flight"):
        record = {**inflight_steps.write(checkpoint.root, state), "info": own}
        states = inflight_steps.existing_records(checkpoint.root, (*checkpoint.manifest.states[-1:], record))
        return committed(checkpoint, replace(checkpoint.manifest, states=states))


def save_task(
    checkpoint: Checkpoint,
    name: str,
    slot: Mapping[str, Any],
    info: Json,
    *,
    shared: Mapping[str, Any] | None = None,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    router: Router | None = None,
) -> Checkpoint:
    """Saves a finished task, with a new version of what is shared if it changed, and ends the training in flight.

    Args:
        checkpoint: the open checkpoint.
        name: the task's name.
        slot: its leaves, without task axis.
        info: JSON beside it, such as its metrics.
        shared: the shared tree when this task changed it; None otherwise, or when it has no leaves.
        changed: slots of earlier tasks that a merge rewrote, by task name.
        router: the router that knows this task too; the saved one, if any, is kept when None.

    Raises:
        TaskError: if the task is already saved, its name is empty or no text, or a changed one or one of the router's
            is not saved.
        InputError: if a slot is not like those of the saved tasks, as a stack of slots is not, or the info is no JSON.
        SaveError: if it cannot be written; the last state stays.

    Example:
        >>> import numpy as np
        >>> store = open_checkpoint("saved")
        >>> store = save_task(store, "rte", {"lora_b": np.ones((2, 3))}, {"accuracy": 0.7})
        >>> store.names, store.manifest.inflight
        (('cola', 'rte'), None)
    """
    before = checkpoint.manifest
    before_saving.check_name(name)
    if name in before.tasks:
        raise TaskError(
            message("task to save", got=repr(name), expected="a new name", fix="tasks are never overwritten")
        )
    own = before_saving.as_json(info, f"task {name!r}")
    before_saving.check_slots(before, name, slot, shared, changed or {})
    version = before.version + 1
    new = replace(before, states=(), version=version)
    with _saving(checkpoint, f"task {name!r}"):
        if shared:
            new = replace(new, shared=_write_known(checkpoint.root, f"shared/{version}", shared))
        tasks = dict(before.tasks)
        for other, leaves in (changed or {}).items():
            info_of_other = checkpoint.info(other)
            folder = f"tasks/{checkpoint.names.index(other):04d}.{version}"
            tasks[other] = {**_write_known(checkpoint.root, folder, leaves), "info": info_of_other}
        record = _write_known(checkpoint.root, f"tasks/{len(tasks):04d}.{version}", slot)
        new = replace(new, tasks={**tasks, name: {**record, "info": own}})
        if router is not None:
            new = replace(new, router=router_files.write(checkpoint.root, new, router))
        return committed(checkpoint, new)


def _write_known(root: Path, folder: str, tree: Mapping[str, Any]) -> arrays.Record:
    """Writes a tree that a later save is held against."""
    return arrays.with_digests(arrays.write(root, folder, tree), tree)


def note(checkpoint: Checkpoint, name: str, info: Json) -> Checkpoint:
    """Replaces what is noted beside a saved task; its arrays are not touched.

    Args:
        checkpoint: the open checkpoint.
        name: the saved task.
        info: JSON in place of what was noted.

    Raises:
        TaskError: if the task is not saved.
        InputError: if the info is no JSON.
        SaveError: if it cannot be written.

    Example:
        >>> store = open_checkpoint("saved")
        >>> note(store, "cola", {"accuracy": 0.8, "seconds": 12}).info("cola")
        {'accuracy': 0.8, 'seconds': 12}
    """
    record = {**checkpoint.record(name), "info": before_saving.as_json(info, f"task {name!r}")}
    with _saving(checkpoint, f"a note on task {name!r}"):
        return committed(checkpoint, replace(checkpoint.manifest, tasks={**checkpoint.manifest.tasks, name: record}))


def load_shared(checkpoint: Checkpoint, like: Mapping[str, Any]) -> dict[str, Any]:
    """The shared tree; an empty one if `like` is empty.

    Args:
        checkpoint: the open checkpoint.
        like: a tree of its structure, shapes and dtypes.

    Raises:
        FormatError: if it is missing, damaged, or does not fit `like`.

    Example:
        >>> import numpy as np
        >>> load_shared(open_checkpoint("saved"), like={"lora_a": np.zeros((4, 2))})["lora_a"].sum()
        np.float64(8.0)
    """
    if not like:
        return {}
    if checkpoint.manifest.shared is None:
        raise FormatError(
            message("shared tree", got="nothing saved", expected="a saved version", fix="learn a task first")
        )
    return arrays.read(checkpoint.root, checkpoint.manifest.shared, like, "the shared tree")


def load_task(checkpoint: Checkpoint, name: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """One task's slot.

    Args:
        checkpoint: the open checkpoint.
        name: the task's name.
        like: a slot of its structure, shapes and dtypes.

    Raises:
        TaskError: if the task is not saved.
        FormatError: if it is damaged or does not fit `like`.

    Example:
        >>> import numpy as np
        >>> load_task(open_checkpoint("saved"), "cola", like={"lora_b": np.zeros((2, 3))})["lora_b"].sum()
        np.float64(6.0)
    """
    return arrays.read(checkpoint.root, checkpoint.record(name), like, f"task {name!r}")


def load_inflight(checkpoint: Checkpoint, like: Mapping[str, Any]) -> dict[str, Any]:
    """The training in flight; its "info" is in the manifest.

    Args:
        checkpoint: the open checkpoint.
        like: a state of its structure, shapes and dtypes.

    Raises:
        FormatError: if there is none, or it is damaged or does not fit `like`.

    Example:
        >>> import numpy as np
        >>> store = open_checkpoint("saved")
        >>> load_inflight(store, like={"lora_b": np.zeros((2, 3))})["lora_b"].sum()
        np.float64(6.0)
    """
    record = checkpoint.manifest.inflight
    if record is None:
        raise FormatError(message("training in flight", got="none", expected="a saved one", fix="start the task anew"))
    return arrays.read(checkpoint.root, record, like, "the training in flight")


def save_router(checkpoint: Checkpoint, router: Router) -> Checkpoint:
    """Saves a router by itself, as after a task was taken out of it; with a new task, `save_task` does.

    Args:
        checkpoint: the open checkpoint.
        router: what is known of saved tasks.

    Raises:
        TaskError: if it knows a task that is not saved.
        SaveError: if it cannot be written; the last one stays.

    Example:
        >>> from share_jax.bank import remove_task
        >>> store = open_checkpoint("saved")
        >>> store = save_router(store, remove_task(load_router(store), "cola"))
        >>> load_router(store).names
        ()
    """
    with _saving(checkpoint, "the router"):
        record = router_files.write(checkpoint.root, checkpoint.manifest, router)
        return committed(checkpoint, replace(checkpoint.manifest, router=record))


def load_router(checkpoint: Checkpoint) -> Router:
    """The saved router, to the bit.

    Raises:
        FormatError: if there is none, or it is damaged.

    Example:
        >>> load_router(open_checkpoint("saved")).names
        ('cola',)
    """
    return router_files.read(checkpoint.root, checkpoint.manifest)
