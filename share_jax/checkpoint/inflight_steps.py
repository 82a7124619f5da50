"""The training in flight on disk: steps of Orbax's `CheckpointManager`, which keeps the last two.

The manager numbers the steps, removes older ones, and what a kill left of one. What it lacks is ours: a step counts
once the manifest names it with the checksums of its files, and a damaged one is given up for the step before it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from share_jax.checkpoint import arrays
from share_jax.checkpoint.arrays import Record
from share_jax.errors import SaveError, message

FOLDER = "inflight"
_ITEM = "default"
"""The folder in a step's in which the manager keeps the tree."""


def write(root: Path, tree: Mapping[str, Any]) -> Record:
    """Writes a state as the next step and returns its record; the last one is kept beside it.

    On several processes all have to call it; see `arrays.write`.

    Args:
        root: the checkpoint's root.
        tree: nested dict of arrays; it must have a leaf.

    Raises:
        SaveError: if the manager declines.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=LatestN(2),
        enable_async_checkpointing=False,  # the manifest names a step that is whole
        cleanup_tmp_directories=True,
        lightweight_initialize=True,  # a damaged step must not be in the way of the next
    )
    state = arrays.to_write(tree)
    with arrays.quiet(), ocp.CheckpointManager((root / FOLDER).absolute(), options=options) as manager:
        latest = manager.latest_step()
        step = 0 if latest is None else latest + 1
        if not manager.save(step, args=ocp.args.StandardSave(state)):
            got, fix = "no save by Orbax", "go on from the last saved state"
            raise SaveError(message(f"step {step} in flight", got=got, expected="a new step", fix=fix))
    return {**arrays.record_of(root, f"{FOLDER}/{step}", state), "item": _ITEM}


def existing_records(root: Path, states: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records of the last state and, where its folder is there, of the one before.

    The manager removes that one when a newer step is written, just before the manifest names the new one. If a kill
    falls between, the manifest still names the removed one.
    """
    return tuple(each for each in states[:-1] if (root / each["path"]).is_dir()) + states[-1:]
