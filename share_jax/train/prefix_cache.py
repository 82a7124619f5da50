"""The frozen layers below the first adapted one, computed once per example and kept, in memory or on disk.

What lies below the first target is the same function in every step of every task. So a model that can be cut there
computes the lower part, its *prefix*, once per example; steps then run the upper part alone:

    cache = PrefixCache(linen_prefix(model), {"params": params}, max_bytes=2**31, folder="runs/mine/prefix")
    hidden = cache.of({"images": train_images})      # (N, ...), as an array or a file mapped into memory
    batch = {"inputs": {"hidden": hidden[chosen]}, "labels": labels[chosen]}

A kept row has the bits that the same compiled prefix gives for its example at any time. XLA may round otherwise for
another batch size, so every call has one pinned batch shape, `rows` examples, the last one padded.
"""

import hashlib
import json
import os
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from share_jax.errors import InputError, LimitError, SaveError, message
from share_jax.storage.atomic_write import flush, replace_text, sha256_of
from share_jax.typing import Tree

_DAY = 86_400.0
"""Seconds after which a file that was never finished is removed."""

_BLOCK = 2**24
"""Bytes that are written at once."""

Prefix = Callable[[Tree, Any], Any]
"""Pure: (variables, inputs with a leading axis of examples) to a tree of arrays with the same leading axis."""


@dataclass(frozen=True)
class PrefixCache:
    """Keeps the output of a frozen prefix, within a bound on memory.

    Attributes:
        prefix: a pure function of the frozen variables and a batch of inputs.
        variables: what it computes with; only what the prefix needs, since all of it is hashed for files.
        rows: examples per call: the pinned batch shape.
        max_bytes: what all kept arrays may take in memory together; no bound if None. An array that is no longer used
            gives its room back.
        folder: where arrays that do not fit are kept as files, which a later cache of the same computation and inputs
            finds again; arrays that do not fit are refused if None.

    Raises:
        InputError: if `rows` is below 1 or `max_bytes` below 0.

    Example:
        >>> def prefix(variables, inputs):
        ...     return inputs["x"] @ variables["kernel"]
        >>> cache = PrefixCache(prefix, {"kernel": np.ones((4, 3), np.float32)}, rows=2)
        >>> hidden = cache.of({"x": np.ones((5, 4), np.float32)})  # in three calls of two rows
        >>> hidden.shape, cache.held_bytes
        ((5, 3), 60)
    """

    prefix: Prefix
    variables: Tree
    rows: int = 128
    max_bytes: int | None = None
    folder: str | os.PathLike[str] | None = None
    _held: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=lambda: {"bytes": 0})
    _run: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(message("rows", got=self.rows, expected="at least 1", fix="pass rows=128"))
        if self.max_bytes is not None and self.max_bytes < 0:
            raise InputError(message("max_bytes", got=self.max_bytes, expected="at least 0", fix="pass None"))
        object.__setattr__(self, "_run", jax.jit(self.prefix))

    @property
    def held_bytes(self) -> int:
        """Bytes in memory of the arrays that this cache made and that are still in use."""
        return self._held["bytes"]

    def compute(self, inputs: Any) -> Any:
        """The prefix of any number of examples, uncached: the bits that `of` keeps.

        Args:
            inputs: a tree of arrays (N, ...).

        Returns:
            A tree of arrays (N, ...).
        """
        out = self._empty(inputs)
        self._fill(inputs, out)
        return out

    def of(self, inputs: Any) -> Any:
        """The prefix of every example, kept: in memory while it fits, else in files mapped into memory.

        Args:
            inputs: a tree of arrays (N, ...), in the order in which rows are to be read.

        Returns:
            A tree of arrays (N, ...), not to be written to.

        Raises:
            InputError: if there are no examples, or the arrays disagree about how many.
            LimitError: if it would pass `max_bytes` and there is no folder.
            SaveError: if the folder's disk is full.
        """
        wanted = self._shapes(inputs)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(wanted))
        if self.max_bytes is None or self.held_bytes + size <= self.max_bytes:
            out = self.compute(inputs)
            for leaf in jax.tree.leaves(out):
                leaf.flags.writeable = False
                self._held["bytes"] += leaf.nbytes
                weakref.finalize(leaf, _give_back, self._held, leaf.nbytes)
            return out
        if self.folder is None:
            got = f"{size} bytes beside {self.held_bytes} that are held"
            expected, fix = f"at most {self.max_bytes} in memory", "raise max_bytes, or pass a folder for the rest"
            raise LimitError(message("frozen prefix", got=got, expected=expected, fix=fix))
        return self._on_disk(inputs, wanted, Path(self.folder))

    def _on_disk(self, inputs: Any, wanted: Any, folder: Path) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp"):  # of a process that was killed
            if time.time() - left.stat().st_mtime > _DAY:
                left.unlink(missing_ok=True)
        name = self._fingerprint(inputs)
        leaves, structure = jax.tree.flatten(wanted)
        paths = [folder / f"{name}-{index}.bin" for index in range(len(leaves))]
        note = folder / f"{name}.json"
        if not _whole(note, paths):
            try:
                self._write(inputs, wanted, note, paths)
            except OSError as error:
                got, fix = error.strerror or str(error), "free some, or raise max_bytes"
                raise SaveError(message(f"frozen prefix in {folder}", got=got, expected="room", fix=fix)) from error
        opened = [np.memmap(p, leaf.dtype, "r", shape=leaf.shape) for p, leaf in zip(paths, leaves, strict=True)]
        return jax.tree.unflatten(structure, opened)

    def _write(self, inputs: Any, wanted: Any, note: Path, paths: list[Path]) -> None:
        """Files under other names until they are whole; the note with their checksums comes last."""
        note.unlink(missing_ok=True)
        partials: list[Path] = []
        try:
            leaves, structure = jax.tree.flatten(wanted)
            for path, leaf in zip(paths, leaves, strict=True):
                descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
                partials.append(Path(name))
                _take_room(descriptor, leaf.size * leaf.dtype.itemsize)
            maps = [np.memmap(p, s.dtype, "w+", shape=s.shape) for p, s in zip(partials, leaves, strict=True)]
            self._fill(inputs, jax.tree.unflatten(structure, maps))
            for mapped in maps:
                mapped.flush()
            sums = [sha256_of(partial) for partial in partials]
            for partial, path in zip(partials, paths, strict=True):
                flush(partial)
                partial.replace(path)
            replace_text(json.dumps({"sha256": sums}), note)
        finally:
            for partial in partials:
                partial.unlink(missing_ok=True)

    def _fill(self, inputs: Any, out: Any) -> None:
        """Writes the prefix of every example into `out`, batch after batch of one shape."""
        count = _examples(inputs)
        for start in range(0, count, self.rows):
            size = min(self.rows, count - start)

            def part(leaf: Any, start: int = start, size: int = size) -> np.ndarray:
                own = np.asarray(leaf[start : start + size])
                return np.concatenate([own, np.repeat(own[-1:], self.rows - size, axis=0)])

            answer = self._run(self.variables, jax.tree.map(part, inputs))
            for into, leaf in zip(jax.tree.leaves(out), jax.tree.leaves(answer), strict=True):
                into[start : start + size] = np.asarray(leaf)[:size]

    def _pinned(self, inputs: Any) -> Any:
        """Shapes of one call's inputs."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.rows, *leaf.shape[1:]), leaf.dtype), inputs)

    def _shapes(self, inputs: Any) -> Any:
        count = _examples(inputs)
        answer = self._run.eval_shape(self.variables, self._pinned(inputs))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), answer)

    def _empty(self, inputs: Any) -> Any:
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), self._shapes(inputs))

    def _fingerprint(self, inputs: Any) -> str:
        """Of the computation (as lowered), where it runs, what it computes with, and its inputs."""
        lowered = self._run.lower(self.variables, self._pinned(inputs)).as_text()
        device = jax.devices()[0]
        digest = hashlib.sha256(f"{jax.__version__} {device.platform} {device.device_kind} {lowered}".encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path((self.variables, inputs)):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:32]


def _take_room(descriptor: int, size: int) -> None:
    """Takes a file's room on the disk now: a mapped file that finds none later ends the process.

    Raises:
        OSError: the disk is full.
    """
    with os.fdopen(descriptor, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            for start in range(0, size, _BLOCK):
                file.write(bytes(min(_BLOCK, size - start)))


def _give_back(held: dict[str, int], size: int) -> None:
    held["bytes"] -= size


def _examples(inputs: Any) -> int:
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(inputs)}
    if len(sizes) != 1 or not min(sizes):
        fix = "pass arrays with one leading axis of examples"
        raise InputError(message("inputs to cache", got=f"leading sizes {sorted(sizes)}", expected="one size", fix=fix))
    return sizes.pop()


def _whole(note: Path, paths: list[Path]) -> bool:
    """Whether the files are there as they were written; what is damaged is computed again."""
    try:
        return json.loads(note.read_text(encoding="utf-8"))["sha256"] == [sha256_of(path) for path in paths]
    except (OSError, ValueError, KeyError, TypeError):
        return False
