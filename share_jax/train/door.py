"""Batches are checked before they go into a compiled step, where nothing can be refused any more.

Shapes cost microseconds and are looked at for every batch. Values are looked at where that is free: those of NumPy
arrays. Labels on a device are not fetched; one that is out of range makes the loss NaN, and is named then.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from share_jax.errors import InputError, line

PER_EXAMPLE = ("inputs", "labels", "weights")

Signature = tuple[tuple[str, tuple[int, ...], str], ...]
"""(path, shape, dtype) of every array of a batch."""


def signature(batch: Any, what: str = "batch") -> Signature:
    """What a compiled step is compiled for.

    Args:
      batch: {"inputs": array or dict of arrays, "labels": (batch,), ...}.
      what: the batch, for the message.

    Raises:
      InputError: if it is no such dict, if it holds no example, or if its arrays differ in how many they hold.
    """
    if not isinstance(batch, Mapping) or "inputs" not in batch:
        got = f"a dict of {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        mend = 'pass {"inputs": array, "labels": array}'
        raise InputError(line(what, got=got, expected='a dict with "inputs"', mend=mend))
    leaves = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in _with_paths(batch)]
    found = tuple((name, tuple(np.shape(leaf)), str(jnp.result_type(leaf))) for name, leaf in leaves)
    first, shape = next(((name, shape) for name, shape, _ in found if name.split("/")[0] == "inputs"), ("inputs", ()))
    if not shape or not shape[0]:
        expected, mend = "at least one example", "put the batch axis first"
        raise InputError(line(f"{first} of {what}", got=f"shape {shape}", expected=expected, mend=mend))
    for name, own, _ in found:
        if name.split("/")[0] in PER_EXAMPLE and own[:1] != shape[:1]:
            expected, mend = f"{shape[0]} examples, as {first}", "give every example one entry"
            raise InputError(line(f"{name} of {what}", got=f"shape {own}", expected=expected, mend=mend))
    return found


def _with_paths(tree: Any) -> Any:
    return jax.tree_util.tree_leaves_with_path(dict(tree))


def check_same(found: Signature, first: Signature, what: str) -> None:
    """Refuses a batch with other arrays than the first one, or of another size; lengths of texts may differ.

    Raises:
      InputError: naming the first array that differs.
    """
    if found == first:
        return
    have, want = ({name: (shape, dtype) for name, shape, dtype in each} for each in (found, first))
    for name in sorted(have.keys() | want.keys()):
        if name not in have or name not in want or _kind(*have[name]) != _kind(*want[name]):
            got, expected = have.get(name, "nothing"), f"{want.get(name, 'nothing')}, as in the first batch"
            mend = "make all batches of a task alike, and pad the last one with weight 0"
            raise InputError(line(f"{name} of {what}", got=got, expected=expected, mend=mend))


def _kind(shape: tuple[int, ...], dtype: str) -> tuple[tuple[int, ...], int, str]:
    return shape[:1], len(shape), dtype


def classes_of(forward: Callable[[], Any], what: str) -> int | None:
    """Runs a model abstractly on a batch; the width of its output, None if that is no one array.

    Raises:
      InputError: if the model does not take the batch; in one line, with the model's own error behind it.
    """
    try:
        out = jax.eval_shape(forward)
    except (TypeError, ValueError, KeyError, FlaxError) as error:
        if isinstance(error, InputError):
            raise
        got = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        mend = "give inputs of the shapes that the model was initialised with"
        raise InputError(line(what, got=got, expected="what the model and the loss take", mend=mend)) from error
    return out.shape[-1] if hasattr(out, "shape") and out.shape else None


def check_labels(batch: Mapping[str, Any], width: int | None, what: str, *, fetch: bool = False) -> None:
    """Refuses labels that no class has; an example of weight 0 may have any.

    Args:
      batch: with "labels" (batch,); "classes", all of `width` if absent; "weights", all 1 if absent.
      width: outputs of the model; None if they are no classes, and then nothing is checked.
      what: the batch, for the message.
      fetch: also look at arrays on a device, waiting for them.

    Raises:
      InputError: naming the first such label.
    """
    if width is None or "labels" not in batch or not (fetch or isinstance(batch["labels"], np.ndarray)):
        return
    labels = np.asarray(batch["labels"])
    if not np.issubdtype(labels.dtype, np.integer):
        mend = "pass the classes' numbers, or a loss of your own"
        raise InputError(line(f"labels of {what}", got=f"dtype {labels.dtype}", expected="whole numbers", mend=mend))
    classes = np.broadcast_to(np.asarray(batch.get("classes", width)), labels.shape)
    counts = np.asarray(batch.get("weights", np.ones(labels.shape))) > 0
    wrong = counts & ((labels < 0) | (labels >= classes))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        where, got = f"labels of {what}, example {place}", int(labels.flat[place])
        mend = "number the task's own classes from 0, and give the head as many outputs as the largest task has"
        raise InputError(line(where, got=got, expected=f"0 to {int(classes.flat[place]) - 1}", mend=mend))
