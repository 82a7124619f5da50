"""The compressed set on disk: a folder with a manifest and content-named safetensors files.

Every file but the manifest is named by its own sha256 and never changes. A new version writes its new files
beside the old ones and then replaces the manifest in one step; only after that are the old files removed. A command
that is killed leaves the old set whole, and files that nobody names, which the next writer removes.
"""

import difflib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from share_jax.adapter_set.contents import SetContents
from share_jax.adapter_set.encoding import decode_state, encode_state, layer_entry
from share_jax.adapter_set.manifest import NAME, Manifest, TaskEntry, encode, is_leftover, read_manifest
from share_jax.errors import FormatError, TaskError, message
from share_jax.storage.atomic_write import flush, replace_bytes
from share_jax.storage.lock import hold_itself
from share_jax.storage.safetensors_file import RawTensor, TensorFile, opened, write_tensors
from share_jax.storage.steady import steady
from share_jax.storage.untrusted import TEMP_MARK, check_folder, publish, shown
from share_jax.subspace.quantize import StoredLayer
from share_jax.subspace.state import ShareState


@dataclass(frozen=True)
class AdapterSet:
    """A set in memory: what its manifest says, and its arrays.

    Example:
        >>> done = read_set("set")
        >>> done.state.tasks, done.task("cola").dtype
        (('cola', 'rte'), 'f32')
    """

    folder: Path
    manifest: Manifest
    state: ShareState
    stored: Mapping[str, StoredLayer]  # the state's arrays as the files hold them

    def task(self, name: str) -> TaskEntry:
        """One task's entry.

        Raises:
            TaskError: the set has no such task.
        """
        return task_entry(self.manifest, name)

    def extras(self, name: str) -> dict[str, RawTensor]:
        """The tensors of a task that were not compressed, as they were read."""
        self.task(name)
        if name not in self.manifest.extras:
            return {}
        with _opened(self.folder, self.manifest, self.manifest.extras[name]) as file:
            return {key: file.raw(key) for key in file.tensors}


def task_entry(manifest: Manifest, name: str) -> TaskEntry:
    """One task's entry; see `AdapterSet.task`."""
    if name not in manifest.tasks:
        near = difflib.get_close_matches(name, manifest.tasks, 1) or list(manifest.tasks)[:1]
        fix = f"did you mean {shown(near[0])}?" if near else "the set is empty"
        raise TaskError(message(f"task {shown(name)}", got="no such task", expected="a task of the set", fix=fix))
    return manifest.tasks[name]


def read_set(folder: str | os.PathLike) -> AdapterSet:
    """Reads a set, checking every checksum, tensor, shape and value that the state needs.

    Raises:
        InputError: there is no such folder.
        FormatError: something is missing, damaged, unexpected or of a newer schema; the line names it.

    Example:
        >>> from share_jax.subspace import report
        >>> done = read_set("set")
        >>> {task: found.error_bound < 0.05 for task, found in report(done.state).items()}
        {'cola': True, 'rte': True}
    """
    path = check_folder(folder, "set")
    return steady(path / NAME, lambda: _read_set(path))


def _read_set(path: Path) -> AdapterSet:
    manifest = read_manifest(path)
    with (
        _opened(path, manifest, manifest.basis) as basis,
        _opened(path, manifest, manifest.coefficients) as coefficients,
    ):
        return AdapterSet(path, manifest, *decode_state(manifest, basis, coefficients))


def check_files(folder: Path, manifest: Manifest) -> Iterator[FormatError]:
    """Every file that is missing, damaged or not the set's, as the error it would be.

    Args:
        folder: the set's.
        manifest: what it says of itself, from `read_manifest`.

    Example:
        >>> manifest = read_manifest("set")
        >>> list(check_files(Path("set"), manifest))
        []
        >>> Path("set", manifest.basis).unlink()
        >>> len(list(check_files(Path("set"), manifest)))
        1
    """
    for name in manifest.files:
        try:
            with _opened(folder, manifest, name):
                pass
        except FormatError as e:
            yield e
    for path in sorted(folder.iterdir()):
        known = path.name == NAME or path.name in manifest.files or is_leftover(path.name)
        if path.suffix == ".safetensors" and not known:
            yield FormatError(
                message(f"file {shown(path.name)}", got="a file that the manifest does not name", expected="none",
                     fix="move it out of the set")
            )  # fmt: skip


def stored_bytes(folder: Path, manifest: Manifest) -> dict[str, int]:
    """The sizes of the set's files, the manifest's included, from the disk."""
    return {name: os.stat(folder / name).st_size for name in (NAME, *manifest.files)}


def _opened(folder: Path, manifest: Manifest, name: str) -> AbstractContextManager[TensorFile]:
    entry = manifest.files[name]
    return opened(folder, name, entry["sha256"], entry["bytes"])


class SetWriter:
    """Writes one new version of a set; made by `new_set` and `changed_set`."""

    def __init__(self, folder: Path, old: Manifest | None = None):
        """`folder` must be locked or not yet published; `old` is what it holds."""
        self.folder = folder
        self._files = dict(old.files) if old is not None else {}

    def write(self, contents: SetContents) -> AdapterSet:
        """Writes the files, then the manifest: the moment at which the new version is the set.

        The returned set holds the values that are stored.
        """
        basis, coefficients = encode_state(contents.state, contents.stored)
        extras = dict(contents.extras)
        for source in contents.sources:
            if source.extra_names:
                extras[source.name] = self._add("extra", source.extras(), source.metadata)
        names = self._add("basis", basis, {}), self._add("coefficients", coefficients, {})
        manifest = Manifest(
            **asdict(contents.settings),
            layers={name: layer_entry(layer) for name, layer in contents.state.layers.items()},
            tasks=contents.tasks,
            configs=contents.configs,
            basis=names[0],
            coefficients=names[1],
            extras=extras,
            forms=contents.forms,
            files={name: self._files[name] for name in sorted({*names, *extras.values()})},
        )
        flush(self.folder)
        replace_bytes(encode(manifest), self.folder / NAME)
        self.clean(manifest)
        return AdapterSet(self.folder, manifest, contents.state, contents.stored)

    def _add(self, kind: str, tensors: Mapping, metadata: Mapping[str, str]) -> str:
        """Writes tensors and returns the name that their content gives."""
        temp = self.folder / f"{TEMP_MARK}{os.getpid()}-{kind}"
        temp.unlink(missing_ok=True)
        digest = write_tensors(temp, tensors, metadata)
        name = f"{kind}-{digest[:16]}.safetensors"
        os.replace(temp, self.folder / name)
        self._files[name] = {"bytes": os.stat(self.folder / name).st_size, "sha256": digest}
        return name

    def clean(self, manifest: Manifest) -> None:
        """Removes what no manifest names: old versions, and what was left by commands that were killed."""
        for path in self.folder.iterdir():
            if is_leftover(path.name) and path.name not in manifest.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def new_set(out: Path, *, overwrite: bool = True) -> Iterator[SetWriter]:
    """A writer for a set that appears at `out` when the block ends without an error; see `publish`."""
    with publish(out, overwrite=overwrite) as temp:
        yield SetWriter(temp)


@contextmanager
def changed_set(folder: str | os.PathLike) -> Iterator[tuple[AdapterSet, SetWriter]]:
    """An existing set, locked against other commands, and a writer for its next version.

    Raises:
        InputError: there is no such folder.
        BusyError: another command is writing to it.
        FormatError: see `read_set`.
    """
    path = check_folder(folder, "set")
    read_manifest(path)  # a folder that is no set is not locked
    with hold_itself(path):
        old = read_set(path)
        writer = SetWriter(path, old.manifest)
        try:
            yield old, writer
        except BaseException:
            writer.clean(read_manifest(path))
            raise
