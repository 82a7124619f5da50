"""The compressed set on disk: a folder with a manifest and content-named safetensors files.

Every file but the manifest is named by its own sha256 and never changes. A new version writes its new files
beside the old ones and then replaces the manifest in one step; only after that are the old files removed. A command
that is killed leaves the old set whole, and files that nobody names, which the next writer removes.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from share_jax.adapter_set.build import with_errors
from share_jax.adapter_set.encoding import decode_state, encode_state, layer_entry
from share_jax.adapter_set.int8_gauge import pivoted_state
from share_jax.adapter_set.manifest import FILE_NAME, NAME, Manifest, TaskEntry, encode, read_manifest
from share_jax.errors import FormatError, LimitError, TaskError, message
from share_jax.formats.adapter_file import Source
from share_jax.storage.atomic_write import flush, is_partial, replace_bytes
from share_jax.storage.lock import hold_itself
from share_jax.storage.safetensors_file import RawTensor, TensorFile, opened, write_tensors
from share_jax.storage.untrusted import TEMP_MARK, check_folder, publish, shown

if TYPE_CHECKING:
    from share_jax.subspace.quantize import StoredLayer
    from share_jax.subspace.state import ShareState


@dataclass(frozen=True)
class AdapterSet:
    """A set in memory: what its manifest says, and its arrays."""

    folder: Path
    manifest: Manifest
    state: "ShareState"
    stored: "Mapping[str, StoredLayer]"  # the state's arrays as the files hold them

    def task(self, name: str) -> TaskEntry:
        """One task's entry.

        Raises:
          TaskError: the set has no such task.
        """
        return task_entry(self.manifest, name)

    def extras(self, name: str) -> dict[str, RawTensor]:
        """The tensors of a task that were not compressed, as they were read."""
        file_name = self.task(name).extra
        if file_name is None:
            return {}
        with opened(self.folder, file_name, self.manifest.files[file_name]["sha256"]) as file:
            return {key: file.raw(key) for key in file.tensors}


def task_entry(manifest: Manifest, name: str) -> TaskEntry:
    """One task's entry; see `AdapterSet.task`."""
    if name not in manifest.tasks:
        import difflib

        near = difflib.get_close_matches(name, manifest.tasks, 1) or list(manifest.tasks)[:1]
        fix = f"did you mean {shown(near[0])}?" if near else "the set is empty"
        raise TaskError(message(f"task {shown(name)}", got="no such task", expected="a task of the set", fix=fix))
    return manifest.tasks[name]


def read_set(folder: str | os.PathLike) -> AdapterSet:
    """Reads a set, checking every checksum, tensor, shape and value that the state needs.

    Raises:
      InputError: there is no such folder.
      FormatError: something is missing, damaged, unexpected or of a newer schema; the line names it.
    """
    path = check_folder(folder, "set")
    manifest = read_manifest(path)
    with (
        opened(path, manifest.basis, _digest(path, manifest, manifest.basis)) as basis,
        opened(path, manifest.coefficients, _digest(path, manifest, manifest.coefficients)) as coefficients,
    ):
        return AdapterSet(path, manifest, *decode_state(manifest, basis, coefficients))


def check_files(folder: Path, manifest: Manifest) -> Iterator[FormatError]:
    """Every file that is missing, damaged or not the set's, as the error it would be."""
    for name in manifest.files:
        try:
            with opened(folder, name, _digest(folder, manifest, name)):
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


def is_leftover(name: str) -> bool:
    """Whether a file that the manifest does not name is one that a killed command left."""
    return name.startswith(TEMP_MARK) or is_partial(name, NAME) or FILE_NAME.fullmatch(name) is not None


def stored_bytes(folder: Path, manifest: Manifest) -> dict[str, int]:
    """The sizes of the set's files, the manifest's included, from the disk."""
    return {name: os.stat(folder / name).st_size for name in (NAME, *manifest.files)}


def _digest(folder: Path, manifest: Manifest, name: str) -> str:
    entry = manifest.files[name]
    with TensorFile(folder, name) as file:
        if file.size != entry["bytes"]:
            raise FormatError(
                message(file.label, got=f"{file.size} bytes", expected=f"{entry['bytes']}", fix="restore the set")
            )
    return entry["sha256"]


class SetWriter:
    """Writes one new version of a set; made by `new_set` and `changed_set`."""

    def __init__(self, folder: Path):
        """`folder` must be locked or not yet published."""
        self.folder = folder
        self._files: dict[str, dict] = {}

    def add_file(self, kind: str, tensors: Mapping, metadata: Mapping[str, str]) -> str:
        """Writes tensors and returns the name that their content gives."""
        temp = self.folder / f"{TEMP_MARK}{os.getpid()}-{kind}"
        temp.unlink(missing_ok=True)
        digest = write_tensors(temp, tensors, metadata)
        name = f"{kind}-{digest[:16]}.safetensors"
        os.replace(temp, self.folder / name)
        self._files[name] = {"bytes": os.stat(self.folder / name).st_size, "sha256": digest}
        return name

    def commit(
        self,
        manifest: Manifest,
        state: "ShareState",
        sources: Sequence[Source] = (),
        before: Mapping[str, TaskEntry] | None = None,
    ) -> AdapterSet:
        """Stores the state, then the manifest: the moment at which the new version is the set.

        `manifest` needs no `layers`, `basis`, `coefficients` and `files`; they come from what is written, and the
        tasks' errors from what is stored. The returned set holds the values that are stored.

        Args:
          manifest: what is known of the tasks.
          state: their bases and coefficients.
          sources: the originals of the new tasks.
          before: the entries of the tasks whose originals are gone.

        Raises:
          LimitError: what is stored is past the limit of the set.
        """
        from share_jax.subspace.quantize import store

        layers, stored = store(pivoted_state(state) if manifest.storage == "int8" else state, manifest.storage)
        manifest = with_errors(manifest, state, stored, before or {}, sources)
        _check_limit(manifest, stored)
        return self.write(manifest, stored, layers)

    def write(self, manifest: Manifest, state: "ShareState", layers: "Mapping[str, StoredLayer]") -> AdapterSet:
        """As `commit`, of arrays that are already in their stored form."""
        basis, coefficients = encode_state(state, layers)
        manifest = replace(
            manifest,
            layers={name: layer_entry(layer) for name, layer in state.layers.items()},
            basis=self.add_file("basis", basis, {}),
            coefficients=self.add_file("coefficients", coefficients, {}),
        )
        used = {manifest.basis, manifest.coefficients, *(t.extra for t in manifest.tasks.values() if t.extra)}
        known = {**manifest.files, **self._files}
        manifest = replace(manifest, files={name: known[name] for name in sorted(used)})
        flush(self.folder)
        replace_bytes(encode(manifest), self.folder / NAME)
        self.clean(manifest)
        return AdapterSet(self.folder, manifest, state, layers)

    def clean(self, manifest: Manifest) -> None:
        """Removes what no manifest names: old versions, and what was left by commands that were killed."""
        for path in self.folder.iterdir():
            if is_leftover(path.name) and path.name not in manifest.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_limit(manifest: Manifest, state: "ShareState") -> None:
    from share_jax.subspace.state import report

    if manifest.limit is None:
        return
    bounds = {name: manifest.tasks[name].cut + found.error_bound for name, found in report(state).items()}
    worst = max(bounds, key=lambda name: bounds[name])
    if bounds[worst] > manifest.limit * (1 + 1e-6):
        raise LimitError(
            message(f"task {shown(worst)} error bound as stored ({manifest.storage})", got=f"{bounds[worst]:.3g}",
                 expected=f"at most {manifest.limit:g}",
                 fix="take --storage f32 and no --pseudo-rank when the set is made, or a larger --max-error")
        )  # fmt: skip


@contextmanager
def new_set(out: Path) -> Iterator[SetWriter]:
    """A writer for a set that appears at `out` when the block ends without an error."""
    with publish(out) as temp:
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
        old, writer = read_set(path), SetWriter(path)
        try:
            yield old, writer
        except BaseException:
            writer.clean(read_manifest(path))
            raise
