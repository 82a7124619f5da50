"""A checkpoint holds no pickles, and loading one runs nothing that a file says."""

import io
import marshal
import pickle
import pickletools
import shelve
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import IDENTITY, assert_same, files_below, fill, leaves, like

from share_jax.checkpoint import checkpoint as ckpt


def is_pickle(content: bytes) -> bool:
    """Whether a pickle starts anywhere in the content: with a protocol mark, and every opcode up to its STOP."""
    starts = [place for place in range(len(content) - 1) if content[place] == 0x80 and 2 <= content[place + 1] <= 5]
    for place in (0, *starts):
        try:
            opcodes = [opcode.name for opcode, _, _ in pickletools.genops(io.BytesIO(content[place:]))]
        except (ValueError, IndexError, OverflowError, UnicodeDecodeError):
            continue
        if len(opcodes) > 2 or place:
            return True
    return False


def test_the_scan_finds_pickles() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert is_pickle(pickle.dumps({"a": np.ones(3)}, protocol))
    assert is_pickle(b"header" + pickle.dumps(print, 4) + b"trailer")
    array = io.BytesIO()
    np.save(array, np.array([print], object), allow_pickle=True)
    assert is_pickle(array.getvalue())


def test_no_file_of_a_checkpoint_holds_a_pickle(tmp_path: Path) -> None:
    store = fill(tmp_path / "run")
    files = files_below(store.root)
    assert len(files) > 40
    for file in files:
        assert not is_pickle(file.read_bytes()), file
        assert file.suffix not in {".pkl", ".pickle", ".pt", ".bin", ".npy", ".npz", ".py"}


def test_loading_unpickles_and_evaluates_nothing(tmp_path: Path) -> None:
    store = fill(tmp_path / "run")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a file was run")

    def loaded() -> list[Any]:
        opened = ckpt.open_checkpoint(store.root, IDENTITY)
        tasks = [ckpt.load_task(opened, name, like(leaves(seed))) for name, seed in (("a", 1), ("b", 2))]
        return [ckpt.load_shared(opened, like(leaves(0))), *tasks, ckpt.load_inflight(opened, like(leaves(3)))]

    loaded()  # the interpreter reads modules by marshal, too: they are imported by now
    with pytest.MonkeyPatch.context() as patch:
        for module in (pickle, pickle._pickle if hasattr(pickle, "_pickle") else pickle):  # pyright: ignore
            for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
                if hasattr(module, name):
                    patch.setattr(module, name, refuse)
        for module, names in ((marshal, ("load", "loads")), (shelve, ("open",))):
            for name in names:
                patch.setattr(module, name, refuse)
        patch.setattr("builtins.eval", refuse)
        found = loaded()
    for got, seed in zip(found, (0, 1, 2, 3), strict=True):
        assert_same(got, leaves(seed))
