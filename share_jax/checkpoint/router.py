"""The task router in a checkpoint: its statistics as one tree of float64 arrays, the tasks' names in the manifest."""

from collections.abc import Sequence
from pathlib import Path

from share_jax.bank.router import Router, arrays_of, router_of
from share_jax.checkpoint import arrays
from share_jax.checkpoint.arrays import Record
from share_jax.checkpoint.manifest import Manifest
from share_jax.errors import FormatError, TaskError, message

WHAT = "the router"


def write(root: Path, manifest: Manifest, router: Router) -> Record:
    """Writes a router into a new folder and returns its record, for the manifest that is to name it.

    Args:
        root: the checkpoint's root.
        manifest: what the checkpoint holds; the router may know no other tasks.
        router: what to write.

    Raises:
        TaskError: if it knows a task that the manifest does not hold.
    """
    check_known(router, tuple(manifest.tasks))
    old = manifest.router
    number = int(old["path"].split("/")[1]) + 1 if old else 0
    return {**arrays.write(root, f"router/{number}", arrays_of(router)), "tasks": list(router.names)}


def check_known(router: Router | None, names: Sequence[str]) -> None:
    """Refuses a router that knows other tasks than these; None knows none.

    Raises:
        TaskError: naming the first.
    """
    other = [name for name in (router.names if router is not None else ()) if name not in names]
    if other:
        expected, fix = f"some of {tuple(names)}", "save that task first, or take it out of the router"
        raise TaskError(message("task of the router to save", got=repr(other[0]), expected=expected, fix=fix))


def read(root: Path, manifest: Manifest) -> Router:
    """The router that a manifest names.

    Raises:
        FormatError: if it names none, or the router is damaged.
    """
    record = manifest.router
    if record is None:
        fix = "make one from the tasks' features with add_task, and save it"
        raise FormatError(message(WHAT, got="nothing saved", expected="a saved router", fix=fix))
    return router_of(record["tasks"], arrays.read(root, record, arrays.like_of(record), WHAT))
