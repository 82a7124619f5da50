"""Checkpoints of a stream of tasks: what is shared once per version, one per task, one for the training in flight.

    ROOT/manifest.json       what is there, for which model, with checksums
    ROOT/shared/VERSION/     Orbax
    ROOT/tasks/SLOT.VERSION/ Orbax: adapter slot and head of one task
    ROOT/inflight/NUMBER/    Orbax: optimizer, key, step and trained leaves

Every save writes a new folder first and then replaces the manifest, which is what makes it count. A kill at any moment
leaves the last committed state; folders that no manifest names are removed when the checkpoint is opened.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, TaskError, line
from share_jax.train import arrays_io, manifest
from share_jax.train.manifest import Identity, Manifest

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint folder. Saving returns a new record; the old one must not be used after it.

    Attributes:
      root: the folder.
      manifest: what it holds.
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

    def record(self, name: str) -> arrays_io.Record:
        """What the manifest says of a task.

        Raises:
          TaskError: if the task is not saved.
        """
        if name not in self.manifest.tasks:
            raise TaskError(line("task", got=repr(name), expected=f"one of {self.names}", mend="check the name"))
        return self.manifest.tasks[name]


def create(root: Path, identity: Identity) -> Checkpoint:
    """A new, empty checkpoint.

    Raises:
      FormatError: if the folder holds anything.
    """
    if root.exists() and any(root.iterdir()):
        raise FormatError(
            line(
                f"checkpoint folder {root}", got="a folder with content", expected="an empty one", mend="resume from it"
            )
        )
    root.mkdir(parents=True, exist_ok=True)
    made = Checkpoint(root, Manifest(identity))
    manifest.commit(root, made.manifest)
    return made


def open_checkpoint(root: Path, identity: Identity | None = None) -> Checkpoint:
    """Opens a checkpoint and removes what an interrupted save left behind.

    Args:
      root: the folder.
      identity: what it must be for; not checked when None, as for a look at its content.

    Raises:
      FormatError: if it is not a checkpoint, is damaged, or is for another model.
    """
    opened = Checkpoint(root, manifest.read(root))
    if identity is not None:
        manifest.check_identity(opened.manifest.identity, identity)
        _sweep(opened)
    return opened


def _sweep(checkpoint: Checkpoint) -> None:
    kept = checkpoint.manifest
    records = [kept.shared, kept.inflight, *kept.tasks.values()]
    named = {record["path"] for record in records if record is not None}
    for kind in ("shared", "tasks", "inflight"):
        folder = checkpoint.root / kind
        for entry in folder.iterdir() if folder.exists() else ():
            if f"{kind}/{entry.name}" not in named:
                shutil.rmtree(entry)


def _committed(checkpoint: Checkpoint, new: Manifest) -> Checkpoint:
    manifest.commit(checkpoint.root, new)
    return replace(checkpoint, manifest=new)


def save_inflight(checkpoint: Checkpoint, state: Mapping[str, Any], info: Json) -> Checkpoint:
    """Saves the training in flight in place of the last one.

    Args:
      checkpoint: the open checkpoint.
      state: nested dict of arrays.
      info: JSON beside it, such as the task's index and step.
    """
    old = checkpoint.manifest.inflight
    number = int(old["path"].split("/")[1]) + 1 if old else 0
    record = arrays_io.write(checkpoint.root, f"inflight/{number}", state)
    after = _committed(checkpoint, replace(checkpoint.manifest, inflight={**record, "info": dict(info)}))
    if old:
        shutil.rmtree(checkpoint.root / old["path"])
    return after


def save_task(
    checkpoint: Checkpoint,
    name: str,
    slot: Mapping[str, Any],
    info: Json,
    *,
    shared: Mapping[str, Any] | None = None,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
) -> Checkpoint:
    """Saves a finished task, with a new version of what is shared if it changed, and ends the training in flight.

    Args:
      checkpoint: the open checkpoint.
      name: the task's name.
      slot: its leaves, without task axis.
      info: JSON beside it, such as its metrics.
      shared: the shared tree when this task changed it; None otherwise, or when it has no leaves.
      changed: slots of earlier tasks that a merge rewrote, by task name.

    Raises:
      TaskError: if the task is already saved, or a changed one is not.
    """
    before = checkpoint.manifest
    if name in before.tasks:
        raise TaskError(line("task to save", got=repr(name), expected="a new name", mend="tasks are never overwritten"))
    version = before.version + 1
    stale = [before.inflight]
    new = replace(before, inflight=None, version=version)
    if shared:
        stale.append(before.shared)
        new = replace(new, shared=arrays_io.write(checkpoint.root, f"shared/{version}", shared))
    tasks = dict(before.tasks)
    for other, leaves in (changed or {}).items():
        stale.append(checkpoint.record(other))
        folder = f"tasks/{checkpoint.names.index(other):04d}.{version}"
        tasks[other] = {**arrays_io.write(checkpoint.root, folder, leaves), "info": checkpoint.info(other)}
    record = arrays_io.write(checkpoint.root, f"tasks/{len(tasks):04d}.{version}", slot)
    tasks[name] = {**record, "info": dict(info)}
    after = _committed(checkpoint, replace(new, tasks=tasks))
    for old in stale:
        if old is not None:
            shutil.rmtree(checkpoint.root / old["path"])
    return after


def note(checkpoint: Checkpoint, name: str, info: Json) -> Checkpoint:
    """Replaces what is noted beside a saved task; its arrays are not touched.

    Raises:
      TaskError: if the task is not saved.
    """
    record = {**checkpoint.record(name), "info": dict(info)}
    return _committed(checkpoint, replace(checkpoint.manifest, tasks={**checkpoint.manifest.tasks, name: record}))


def load_shared(checkpoint: Checkpoint, like: Mapping[str, Any]) -> dict[str, Any]:
    """The shared tree; an empty one if `like` is empty.

    Raises:
      FormatError: if it is missing, damaged, or does not fit `like`.
    """
    if not like:
        return {}
    if checkpoint.manifest.shared is None:
        raise FormatError(
            line("shared tree", got="nothing saved", expected="a saved version", mend="learn a task first")
        )
    return arrays_io.read(checkpoint.root, checkpoint.manifest.shared, like, "the shared tree")


def load_task(checkpoint: Checkpoint, name: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """One task's slot.

    Raises:
      TaskError: if the task is not saved.
      FormatError: if it is damaged or does not fit `like`.
    """
    return arrays_io.read(checkpoint.root, checkpoint.record(name), like, f"task {name!r}")


def load_inflight(checkpoint: Checkpoint, like: Mapping[str, Any]) -> dict[str, Any]:
    """The training in flight; its "info" is in the manifest.

    Raises:
      FormatError: if there is none, or it is damaged or does not fit `like`.
    """
    record = checkpoint.manifest.inflight
    if record is None:
        raise FormatError(line("training in flight", got="none", expected="a saved one", mend="start the task anew"))
    return arrays_io.read(checkpoint.root, record, like, "the training in flight")
