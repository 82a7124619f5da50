"""What each task's update was when it was learnt, for measuring what merging cost it since.

These files are beside the checkpoint, and no part of it: the method does without them, and they are not counted in its
bytes. A resumed run measures with them what an unbroken one does.
"""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from share_jax.adapters.factors import Adapter, Factors
from share_jax.runtime.processes import primary

_SIDES = ("lora_a", "lora_b")


def write_adapter(folder: Path, index: int, adapter: Adapter) -> None:
    """Writes a task's update in one step; of several processes the first does."""
    if not primary():
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{index:04d}.partial"
    save_file({f"{name}:{side}": getattr(own, side) for name, own in adapter.items() for side in _SIDES}, partial)
    os.replace(partial, _file(folder, index))


def read_adapter(folder: Path, index: int) -> Adapter | None:
    """A task's update as it was written; None where there is no such file, or it cannot be read."""
    try:
        arrays = load_file(_file(folder, index))
    except (OSError, SafetensorError):
        return None
    names = dict.fromkeys(key.rpartition(":")[0] for key in arrays)
    return {name: Factors(arrays[f"{name}:lora_a"], arrays[f"{name}:lora_b"]) for name in names}


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:04d}.safetensors"
