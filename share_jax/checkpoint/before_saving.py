"""What a checkpoint is given, checked before anything is written: names, what is noted beside a record, slots."""

import json
from collections.abc import Mapping
from typing import Any

from share_jax.checkpoint.manifest import Manifest
from share_jax.errors import InputError, TaskError, message
from share_jax.parameterizations.base import Parameterization, specs
from share_jax.parameterizations.built_in import built_in
from share_jax.storage.atomic_write import reason
from share_jax.trees import flat

_ONE_SLOT = "pass one task's slot without task axis, as share_jax.bank.slots.read_slot returns it"

Shapes = dict[str, tuple[list[int], str]]
"""Shape and dtype of every leaf by its path."""


def check_name(name: Any) -> None:
    """Refuses a task's name that is empty or no text: a manifest would give it back as another.

    Raises:
        TaskError: showing it.
    """
    if not isinstance(name, str) or not name:
        got, expected = f"{type(name).__name__} {name!r}", "a str that is not empty"
        raise TaskError(message("task to save", got=got, expected=expected, fix="pass the task's name"))


def as_json(info: Any, what: str) -> dict[str, Any]:
    """What is noted beside a record.

    Raises:
        InputError: if it is no dict that JSON can hold; names the entry.
    """
    where = f"info of {what}"
    if not isinstance(info, Mapping):
        fix = 'pass {"accuracy": 0.5}, or {}'
        raise InputError(message(where, got=type(info).__name__, expected="a dict", fix=fix))
    for key, value in info.items():
        try:
            json.dumps({key: value})
        except (TypeError, ValueError, RecursionError) as error:
            got, fix = f"{key!r}: {reason(error)}", "turn arrays into lists and their numbers into Python's: .tolist()"
            raise InputError(message(where, got=got, expected="what JSON holds", fix=fix)) from error
    return dict(info)


def _shapes(slot: Any, what: str) -> Shapes:
    """Those of a slot.

    Raises:
        InputError: if it is no nested dict of arrays; names the leaf.
    """
    leaves = flat(slot) if isinstance(slot, Mapping) else {}
    for path, leaf in leaves.items():
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            got = type(leaf).__name__
            raise InputError(message(f"leaf {path} of {what}", got=got, expected="an array", fix=_ONE_SLOT))
    if not leaves:
        got = "an empty one" if isinstance(slot, Mapping) else type(slot).__name__
        raise InputError(message(f"slot of {what}", got=got, expected="a nested dict of arrays", fix=_ONE_SLOT))
    return {path: (list(leaf.shape), str(leaf.dtype)) for path, leaf in leaves.items()}


def _check_alike(have: Shapes, want: Shapes, what: str, other: str) -> None:
    """Refuses a slot that is not like another task's.

    Raises:
        InputError: naming the first leaf that is missing, unexpected, or of another shape or dtype.
    """
    for path in sorted(want.keys() | have.keys()):
        if have.get(path) != want.get(path):
            got, expected = have.get(path, "nothing"), f"{want.get(path, 'no such leaf')}, as {other} has"
            raise InputError(message(f"leaf {path} of {what}", got=got, expected=expected, fix=_ONE_SLOT))


def _check_beside(have: Shapes, shared: Mapping[str, Any], method: Parameterization, what: str) -> None:
    """Refuses a slot with other axes in front than the shared leaves of the same layers, as the first task's may have.

    Raises:
        InputError: naming the first such leaf.
    """
    ahead: dict[str, int] = {}
    for path, leaf in flat(shared).items():
        layer, _, name = path.rpartition("/")
        if name in (known := specs(method, "shared")):
            ahead[layer] = leaf.ndim - len(known[name].axes)
    for path, (shape, _) in have.items():
        layer, _, name = path.rpartition("/")
        if layer in ahead and name in (known := specs(method, "task")):
            wanted = ahead[layer] + len(known[name].axes)
            if len(shape) != wanted:
                got, expected = f"shape {shape}", f"{wanted} axes, as the shared leaf beside it has"
                raise InputError(message(f"leaf {path} of {what}", got=got, expected=expected, fix=_ONE_SLOT))


def check_slots(
    before: Manifest, name: str, slot: Any, shared: Mapping[str, Any] | None, changed: Mapping[str, Any]
) -> None:
    """Refuses slots that could never be loaded again as the others are.

    Args:
        before: what the checkpoint holds.
        name: the new task's name.
        slot: its slot, to be like that of a saved task.
        shared: the shared tree that is saved with it; for the first task all that there is to hold its slot against.
        changed: slots of saved tasks that are written anew, by name.

    Raises:
        InputError: naming the first leaf that does not fit.
    """
    own = _shapes(slot, f"task {name!r}")
    other, want = f"task {name!r}", own
    kept = next((kept for kept in before.tasks if kept not in changed), None)
    if kept is not None:
        leaves = before.tasks[kept]["leaves"]
        other, want = f"task {kept!r}", {path: (leaf["shape"], leaf["dtype"]) for path, leaf in leaves.items()}
    _check_alike(own, want, f"task {name!r}", other)
    for rewritten, leaves in changed.items():
        what = f"task {rewritten!r}"
        _check_alike(_shapes(leaves, what), want, what, other)
    method = built_in(before.identity.method.get("name", ""))
    if shared and method is not None:
        _check_beside(own, shared, method, f"task {name!r}")
