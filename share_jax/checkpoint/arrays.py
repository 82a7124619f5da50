"""One tree of arrays on disk: an Orbax checkpoint, with our own checksum of every file.

Orbax loads a flipped byte in a data file without a word, and raises unrelated types for a missing or truncated file.
So a record of what was written is kept beside it and verified before Orbax reads anything. The checksums are those of
the files, not of the arrays: they cover what describes the arrays too, name the damaged file, are verified without
reading any array, and need no array of another process. Values are compared by digests only where a caller has to know
whether its arrays are those on disk (see `digests`).
"""

import hashlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from share_jax.errors import FormatError, first_line, message
from share_jax.runtime.processes import to_host, wait
from share_jax.storage.atomic_write import flush_tree, sha256_of
from share_jax.trees import flat, merged, nested

Record = dict[str, Any]
"""{"path": folder below the root, "leaves": {path: {"shape", "dtype"}}, "files": {name: sha256}}, and in a state in
flight "item", the folder below with the arrays. Tasks and what is shared have "sha256" in "leaves", too."""

FIX = "restore the folder from a copy, or learn this task again"


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax from logging the traces of errors that it also raises."""
    log = logging.getLogger("absl")

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    log.addFilter(passes)
    try:
        yield
    finally:
        log.removeFilter(passes)


def write(root: Path, folder: str, tree: Mapping[str, Any]) -> Record:
    """Writes a nested dict of arrays as a new Orbax checkpoint and returns its record.

    On several processes all have to call it, with one file system under the root; Orbax writes each process's shards.

    Args:
        root: the checkpoint's root.
        folder: where to write below the root; must not exist.
        tree: nested dict of arrays; it must have a leaf.

    Raises:
        FormatError: if the folder exists.
    """
    target = root / folder
    if target.exists():
        raise FormatError(
            message(
                f"checkpoint folder {folder}", got="a folder that exists", expected="a new one", fix="resume the run"
            )
        )
    own = to_write(tree)
    with quiet(), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target.absolute(), _filled(own))
        checkpointer.wait_until_finished()
    return record_of(root, folder, own)


def _filled(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves that have entries: Orbax takes no others. An empty one, as a basis of no columns, is in the record."""
    return {
        name: _filled(part) if isinstance(part, Mapping) else part
        for name, part in tree.items()
        if isinstance(part, Mapping) or part.size
    }


def to_write(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree as Orbax is given it: on the host, unless its arrays are those of several processes."""
    return to_host(dict(tree)) if jax.process_count() == 1 else dict(tree)


def record_of(root: Path, folder: str, tree: Mapping[str, Any]) -> Record:
    """Flushes what was written to the device and returns its record; all processes have to call it.

    Args:
        root: the checkpoint's root.
        folder: the tree's folder below it.
        tree: what was written there.
    """
    target = root / folder
    flush_tree(target)
    wait(f"written {folder}")
    leaves = {path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in flat(tree).items()}
    files = {str(f.relative_to(target)): sha256_of(f) for f in sorted(target.rglob("*")) if f.is_file()}
    return {"path": folder, "leaves": leaves, "files": files}


def digests(tree: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of every leaf's bytes in C order, by its path; all processes have to call it."""
    host = flat(to_host(dict(tree)))
    return {path: hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest() for path, leaf in host.items()}


def with_digests(record: Record, tree: Mapping[str, Any]) -> Record:
    """The record with the digest of every leaf, by which `save_bank` tells a saved task from another of its name."""
    leaves = {path: {**record["leaves"][path], "sha256": own} for path, own in digests(tree).items()}
    return {**record, "leaves": leaves}


def like_of(record: Record) -> dict[str, Any]:
    """Empty arrays of the record's own shapes and dtypes, to read back what no model fixes the shape of."""
    return nested({path: np.empty(leaf["shape"], leaf["dtype"]) for path, leaf in record["leaves"].items()})


def check_like(record: Record, like: Mapping[str, Any], what: str) -> None:
    """Holds a record's leaves against the tree that is wanted.

    Args:
        record: from `write`.
        like: nested dict of arrays or `jax.ShapeDtypeStruct`.
        what: whose leaves these are, for the message.

    Raises:
        FormatError: naming the first leaf that is missing, unexpected, or of another shape or dtype.
    """
    want = {path: (list(leaf.shape), str(leaf.dtype)) for path, leaf in flat(like).items()}
    have = {path: (leaf["shape"], leaf["dtype"]) for path, leaf in record["leaves"].items()}
    fix = "use the model, targets and rank that the checkpoint was made with"
    for path in sorted(want.keys() | have.keys()):
        if path not in have:
            raise FormatError(message(f"leaf {path} of {what}", got="nothing on disk", expected=want[path], fix=fix))
        if path not in want:
            raise FormatError(message(f"leaf {path} of {what}", got=have[path], expected="no such leaf", fix=fix))
        if want[path] != have[path]:
            raise FormatError(message(f"leaf {path} of {what}", got=have[path], expected=want[path], fix=fix))


def damaged_file(root: Path, record: Record) -> tuple[str, str, str] | None:
    """The first file that is missing, unexpected or changed, with what it is and should be; None if all are whole."""
    folder = root / record["path"]
    on_disk = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
    for name in sorted(on_disk.keys() | record["files"].keys()):
        shown = f"file {record['path']}/{name}"
        if name not in on_disk:
            return shown, "no file", "the file that was saved"
        if name not in record["files"]:
            return shown, "a file", "no such file"
        if sha256_of(on_disk[name]) != record["files"][name]:
            return shown, "other bytes", "the bytes that were saved"
    return None


def check_files(root: Path, record: Record, what: str) -> None:
    """Holds the files against the checksums of the record.

    Raises:
        FormatError: naming the first file that is missing, unexpected or changed.
    """
    found = damaged_file(root, record)
    if found is not None:
        shown, got, expected = found
        raise FormatError(message(f"{shown} of {what}", got=got, expected=expected, fix=FIX))


def read(root: Path, record: Record, like: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Reads a tree back, after holding it against what is wanted and against every checksum.

    Args:
        root: the checkpoint's root.
        record: from `write`.
        like: nested dict of arrays or `jax.ShapeDtypeStruct`; a leaf's sharding, if it has one, is where it goes.
        what: what is read, for messages.

    Raises:
        FormatError: if a leaf does not fit, or anything on disk is damaged; names the leaf or file.
    """
    check_like(record, like, what)
    check_files(root, record, what)
    folder = root / record["path"] / record.get("item", "")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(folder.absolute(), _filled(like))
    except Exception as error:  # Orbax raises plain Exception among others
        raise FormatError(message(what, got=first_line(error), expected="an Orbax checkpoint", fix=FIX)) from error
    empty = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in flat(like).items() if not leaf.size}
    return merged(found, nested(empty)) if empty else found


def of_the_disk(error: Exception) -> bool:
    """Whether the system, or Orbax on the way to it, could not write; not whether it was given something else."""
    if isinstance(error, OSError) or "os_error_code" in str(error):
        return True
    if isinstance(error, TypeError | KeyError | AttributeError):
        return False
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.partition(".")[0] in ("orbax", "tensorstore") for name in frames)
