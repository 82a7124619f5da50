"""Which parts of a checkpoint are damaged, which still load, and how to go on from the last good state."""

from dataclasses import dataclass, replace
from pathlib import Path

from share_jax.checkpoint import manifest
from share_jax.checkpoint.arrays import damaged_file
from share_jax.checkpoint.checkpoint import Checkpoint, committed
from share_jax.checkpoint.manifest import Manifest
from share_jax.errors import FormatError, message


@dataclass(frozen=True)
class Damage:
    """One damaged part of a checkpoint.

    Attributes:
        what: the part, such as "task 'news'" or "the training in flight".
        task: the task's name, None if the part is no task.
        file: the first damaged file, below the checkpoint's folder.
        got: what it is.
        expected: what it was.

    Example:
        >>> from share_jax.checkpoint import open_checkpoint
        >>> Path("saved/manifest.copy.json").unlink()
        >>> find_damage(open_checkpoint("saved"))
        (Damage(what='the manifest', task=None, file='file manifest.copy.json', ...),)
    """

    what: str
    task: str | None
    file: str
    got: str
    expected: str


def find_damage(checkpoint: Checkpoint) -> tuple[Damage, ...]:
    """Every damaged part, by the checksums of all files; empty when all is whole. Nothing is written.

    Example:
        >>> from share_jax.checkpoint import open_checkpoint
        >>> file = min(path for path in Path("saved/tasks").rglob("*") if path.is_file())
        >>> size = file.write_bytes(b"")
        >>> [damage.what for damage in find_damage(open_checkpoint("saved"))]
        ["task 'cola'"]
    """
    tasks = {f"task {name!r}": name for name in checkpoint.names}
    found = []
    for what, record in checkpoint.manifest.records().items():
        first = damaged_file(checkpoint.root, record)
        if first is not None:
            found.append(Damage(what, tasks.get(what), *first))
    copy = manifest.copy_damage(checkpoint.root)
    if copy is not None:
        found.append(Damage("the manifest", None, f"file {manifest.COPY}", "other content", "the manifest's copy"))
    return tuple(found)


def repaired(checkpoint: Checkpoint, found: tuple[Damage, ...]) -> Checkpoint:
    """The last good state: what is damaged is given up, and what cannot be gone on with without it.

    - The training in flight: the state saved before it, or none if that is damaged too.
    - A task: it and those learnt after it. Those before it go, too, if a later one rewrote them or what is shared:
      the state in which the damaged one was learnt is then gone.
    - What is shared: all tasks.
    - The router: it alone. It also goes when a task does, since what the task added to it cannot be taken out again.

    Learning goes on from there, with the same bits as if it had never been further. The other tasks of a checkpoint
    whose learning is over need no repair: `load_task` takes each by itself.

    Args:
        checkpoint: the open checkpoint.
        found: from `find_damage`.

    Raises:
        OSError: if it cannot be written.

    Example:
        >>> import shutil
        >>> from share_jax.checkpoint import open_checkpoint
        >>> shutil.rmtree("saved/inflight")
        >>> store = open_checkpoint("saved")
        >>> found = find_damage(store)
        >>> [damage.what for damage in found], find_damage(repaired(store, found))
        (['the training in flight'], ())
    """
    return committed(checkpoint, _without(checkpoint.manifest, {damage.what for damage in found}))


def _without(kept: Manifest, damaged: set[str]) -> Manifest:
    whole = {what: record for what, record in kept.records().items() if what not in damaged}
    kept = kept if "the router" in whole else replace(kept, router=None)
    names = list(kept.tasks)
    count = next((i for i, name in enumerate(names) if f"task {name!r}" in damaged), len(names))
    lost_shared = kept.shared is not None and "the shared tree" not in whole
    if count == len(names) and not lost_shared:
        return replace(kept, states=tuple(whole[what] for what in reversed(manifest.STATES) if what in whole))
    # Task number i (from 1) was saved as version i, and nothing that goes back to it may be newer.
    versions = [_version(kept.tasks[name]["path"]) for name in names[:count]]
    versions += [_version(kept.shared["path"])] if kept.shared is not None else []
    if lost_shared or not count or max(versions) > count:
        return Manifest(kept.identity)
    return replace(
        kept,
        version=count,
        tasks={name: kept.tasks[name] for name in names[:count]},
        states=(),
        router=None,
    )


def _version(path: str) -> int:
    return int(path.replace("/", ".").rsplit(".", 1)[1])


def check(checkpoint: Checkpoint, how: str = "share_jax.checkpoint.repaired") -> None:
    """Refuses a checkpoint with any damage, in one line that says what is still good.

    Args:
        checkpoint: the open checkpoint.
        how: what the caller's user does to have it repaired.

    Raises:
        FormatError: naming the first damaged file and its task, the tasks that still load, and where `how` would go on.
    """
    found = find_damage(checkpoint)
    if not found:
        return
    first = found[0]
    more = f" ({len(found) - 1} more parts are damaged)" if len(found) > 1 else ""
    bad = {damage.task for damage in found}
    good = ", ".join(repr(name) for name in checkpoint.names if name not in bad) or "none"
    after = _without(checkpoint.manifest, {damage.what for damage in found})
    fix = (
        f"tasks that still load: {good}; restore the folder from a copy, or use {how} to go on from the last good "
        f"state, {state_of(after)}"
    )
    what = f"{first.file} of {first.what} in {checkpoint.root}"
    raise FormatError(message(what, got=first.got + more, expected=first.expected, fix=fix))


def state_of(kept: Manifest) -> str:
    """A few words on how far learning has come.

    >>> state_of(Manifest(None))
    'the start'
    """
    done = f"after task {list(kept.tasks)[-1]!r}" if kept.tasks else "the start"
    if kept.inflight is None:
        return done
    info = kept.inflight.get("info", {})
    return f"step {info.get('step')} of task {info.get('task')!r}"


def restore_manifest(root: Path) -> bool:
    """Puts a manifest's copy in the place of a damaged manifest.

    Returns:
        Whether anything was damaged.

    Raises:
        FormatError: if its copy is no good either, or both are newer than this program.
    """
    try:
        manifest.read(root)
    except FormatError:
        manifest.commit(root, manifest.read(root, manifest.COPY))
        return True
    return False


def check_manifest(root: Path, how: str = "share_jax.checkpoint.repair.restore_manifest") -> None:
    """Refuses a damaged manifest, and offers its copy if that is whole.

    Raises:
        FormatError: naming the file.
    """
    try:
        manifest.read(root)
    except FormatError as error:
        if manifest.copy_damage(root) is not None:
            raise
        text, _, _ = str(error).rpartition("; ")
        raise FormatError(f"{text}; its copy {manifest.COPY} is whole: use {how} to go on from that") from error
