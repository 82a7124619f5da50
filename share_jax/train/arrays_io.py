"""One tree of arrays on disk: an Orbax checkpoint, with our own checksums of every file and every leaf.

Orbax loads a flipped byte in a data file without a word, and raises unrelated types for a missing or truncated file.
So a record of what was written is kept beside it and verified before Orbax reads anything.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from share_jax.errors import FormatError, line
from share_jax.nn.trees import flat, nested

Record = dict[str, Any]
"""{"path": folder below the root, "leaves": {path: {"shape", "dtype", "sha256"}}, "files": {name: sha256}}"""

MEND = "restore the folder from a copy, or learn this task again"


def digest(array: Any) -> str:
    """sha256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(root: Path, folder: str, tree: Mapping[str, Any]) -> Record:
    """Writes a nested dict of arrays as a new Orbax checkpoint and returns its record.

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
            line(f"checkpoint folder {folder}", got="a folder that exists", expected="a new one", mend="resume the run")
        )
    host = jax.tree.map(np.asarray, dict(tree))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target.absolute(), host)
        checkpointer.wait_until_finished()
    leaves = {
        path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "sha256": digest(leaf)}
        for path, leaf in flat(host).items()
    }
    files = {str(f.relative_to(target)): _file_digest(f) for f in sorted(target.rglob("*")) if f.is_file()}
    return {"path": folder, "leaves": leaves, "files": files}


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
    mend = "use the model, targets and rank that the checkpoint was made with"
    for path in sorted(want.keys() | have.keys()):
        if path not in have:
            raise FormatError(line(f"leaf {path} of {what}", got="nothing on disk", expected=want[path], mend=mend))
        if path not in want:
            raise FormatError(line(f"leaf {path} of {what}", got=have[path], expected="no such leaf", mend=mend))
        if want[path] != have[path]:
            raise FormatError(line(f"leaf {path} of {what}", got=have[path], expected=want[path], mend=mend))


def check_files(root: Path, record: Record, what: str) -> None:
    """Holds the files against the checksums of the record.

    Raises:
      FormatError: naming the first file that is missing, unexpected or changed.
    """
    folder = root / record["path"]
    on_disk = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
    for name in sorted(on_disk.keys() | record["files"].keys()):
        shown = f"file {record['path']}/{name} of {what}"
        if name not in on_disk:
            raise FormatError(line(shown, got="no file", expected="the file that was saved", mend=MEND))
        if name not in record["files"]:
            raise FormatError(line(shown, got="a file", expected="no such file", mend="remove it"))
        if _file_digest(on_disk[name]) != record["files"][name]:
            raise FormatError(line(shown, got="other bytes", expected="the bytes that were saved", mend=MEND))


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
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore((root / record["path"]).absolute(), dict(like))
    except Exception as error:  # Orbax raises plain Exception among others
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(line(what, got=reason, expected="an Orbax checkpoint", mend=MEND)) from error
    for path, leaf in flat(tree).items():
        if digest(leaf) != record["leaves"][path]["sha256"]:
            raise FormatError(line(f"leaf {path} of {what}", got="other values", expected="those saved", mend=MEND))
    return tree
