"""Batches are checked before they go into a compiled step, where nothing can be refused any more.

Shapes cost microseconds and are looked at for every batch. Values are looked at where that is free: those of NumPy
arrays. Labels on a device are not fetched; one that is out of range makes the loss NaN, and is named then. Weights on a
device are read some batches behind, many at once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError, InvalidRngError, ModifyScopeVariableError

from share_jax.errors import InputError, ShareError, entries, first_line, message
from share_jax.model_inputs import Inputs
from share_jax.traced import batch_axis

PER_EXAMPLE = ("inputs", "labels", "weights")

BEHIND = 32
"""Batches whose weights are fetched from a device together."""

NOT_TAKEN = (*batch_axis.NOT_TAKEN, NameError, FlaxError)
"""What Flax, JAX and losses raise for arrays that do not fit them."""

BATCH_AXIS = "give every example one entry, or name an input that all examples share in `unbatched` of the Learner"

CLASSES = "number the task's own classes from 0, and give the head as many outputs as the largest task has"

Signature = tuple[tuple[str, tuple[int, ...], str], ...]
"""(path, shape, dtype) of every array of a batch."""

Shares = Callable[[str], bool]
"""Whether all examples share the input at a path, which then has no batch axis."""


def none(place: str) -> bool:
    """Every input has a batch axis."""
    return False


def signature(batch: Any, what: str = "batch", shares: Shares = none) -> Signature:
    """What a compiled step is compiled for.

    Args:
        batch: {"inputs": array or dict of arrays, "labels": (batch,), ...}.
        what: the batch, for the message.
        shares: which inputs have no batch axis.

    Raises:
        InputError: if it is no such dict, if it holds no example or something else than numbers, or if its arrays
            differ in how many examples they hold.
    """
    if not isinstance(batch, Mapping) or "inputs" not in batch:
        fix = 'pass {"inputs": array, "labels": array}'
        raise InputError(message(what, got=entries(batch), expected='a dict with "inputs"', fix=fix))
    found = tuple((name, tuple(np.shape(leaf)), _dtype(leaf, f"{name} of {what}")) for name, leaf in _named(batch))
    counted = [(name, shape) for name, shape, _ in found if _has_examples(name, shares)]
    first, shape = next((each for each in counted if _top(each[0]) == "inputs"), (counted or [("inputs", (1,))])[0])
    if not shape or not shape[0]:
        expected = "at least one example"
        fix = (
            "put the batch axis first"
            if shape
            else "put the batch axis first; or name it in `unbatched`, a flag in train_kwargs"
        )
        raise InputError(message(f"{first} of {what}", got=f"shape {shape}", expected=expected, fix=fix))
    for name, own in counted:
        if own[:1] != shape[:1]:
            top = _top(name)
            listed = isinstance(batch[top], list | tuple) and not hasattr(batch[top], "_fields")
            expected = f"{shape[0]} examples, as {first}"
            fix = "give every example one entry" if top != "inputs" else BATCH_AXIS
            fix = f"make one array of the list, np.asarray({top})" if listed and type(batch[top]) is list else fix
            raise InputError(message(f"{name} of {what}", got=f"shape {own}", expected=expected, fix=fix))
    return found


def _top(name: str) -> str:
    return name.split("/")[0]


def _has_examples(name: str, shares: Shares) -> bool:
    return _top(name) in PER_EXAMPLE and not (_top(name) == "inputs" and shares(name))


def counted(found: Signature, shares: Shares = none) -> int | None:
    """How many examples a batch of this signature has; None if none of its arrays says."""
    sizes = [shape[0] for name, shape, _ in found if shape and _has_examples(name, shares)]
    return sizes[0] if sizes else None


def examples_of(inputs: Any, shares: Shares = none) -> int | None:
    """How many examples inputs have; None if all examples share all of them.

    Raises:
        TypeError: if there is no array with an axis among them.
    """
    leaves = _named({"inputs": inputs})
    if not any(np.ndim(leaf) for _, leaf in leaves):
        raise TypeError("no array with an axis among them")
    return counted(tuple((name, tuple(np.shape(leaf)), "") for name, leaf in leaves), shares)


def _dtype(leaf: Any, where: str) -> str:
    try:
        if not isinstance(leaf, str | bytes):  # JAX would take text for a dtype's name
            return str(jnp.result_type(leaf))
    except TypeError:
        pass  # refused below
    dtype = getattr(leaf, "dtype", None)
    got = type(leaf).__name__ if dtype is None else f"dtype {dtype}"
    fix = "pass numbers, and leave out of the batch what neither the model nor the loss computes with"
    raise InputError(message(where, got=got, expected="numbers", fix=fix))


def _named(batch: Mapping[str, Any]) -> list[tuple[str, Any]]:
    inputs = batch.get("inputs")
    one_tree = not jax.tree_util.all_leaves([inputs]) and not isinstance(inputs, Mapping | list | Inputs)
    if one_tree and type(inputs) is not tuple:  # a graph, say, which is the argument at place 0
        batch = {**batch, "inputs": {"0": inputs}}
    found = jax.tree_util.tree_leaves_with_path(dict(batch))
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in found]


def check_same(found: Signature, first: Signature, what: str, shares: Shares = none) -> None:
    """Refuses a batch with other arrays than the first one, or of another size; lengths of texts may differ.

    Raises:
        InputError: naming the first array that differs.
    """
    if found == first:
        return
    have, want = ({name: (shape, dtype) for name, shape, dtype in each} for each in (found, first))
    for name in sorted(have.keys() | want.keys()):
        free = _top(name) == "inputs" and shares(name)
        if name not in have or name not in want or _kind(*have[name], free) != _kind(*want[name], free):
            got, expected = have.get(name, "nothing"), f"{want.get(name, 'nothing')}, as in the first batch"
            fix = "make all batches of a task alike, and pad the last one with weight 0"
            raise InputError(message(f"{name} of {what}", got=got, expected=expected, fix=fix))


def _kind(shape: tuple[int, ...], dtype: str, free: bool) -> tuple[tuple[int, ...], int, str]:
    return () if free else shape[:1], len(shape), dtype


def refuse(error: Exception, what: str, by: str = "model") -> NoReturn:
    """Raises one line in place of what a model, or a loss, raised for arrays that it does not take.

    Args:
        error: one of `NOT_TAKEN`.
        what: what was given, for the message.
        by: "model" or "loss".

    Raises:
        ShareError: the error itself, where it is one line already.
        InputError: in place of any other, with it behind.
    """
    if isinstance(error, ShareError):
        raise error
    reason = first_line(error, "no reason")
    fixes = {
        "model": "give inputs of the shapes that the model was initialised with",
        "loss": "put what the loss reads into the batch, in the shapes that it takes",
    }
    if isinstance(error, InvalidRngError):
        fixes["model"] = (
            "name the streams that the model draws from in `rngs` of the Learner, or switch its dropout off"
        )
    if isinstance(error, ModifyScopeVariableError):
        fixes["model"] = 'name the collections that the model changes, as train_kwargs={"mutable": ["batch_stats"]}'
    if "missing" in reason and "argument" in reason:
        fixes["model"] = "pass it with the inputs, or the same for all batches in train_kwargs and predict_kwargs"
    if "'task_id'" in reason:
        fixes["model"] = "pass what share_jax.adapt returned, or a module whose __call__ takes task_id"
    got = f"{type(error).__name__}: {reason}"
    raise InputError(message(what, got=got, expected=f"what the {by} takes", fix=fixes[by])) from error


def output_of(forward: Callable[[], Any], what: str) -> Any:
    """Runs a model abstractly on a batch: its output, with shapes and dtypes in place of arrays.

    Raises:
        InputError: if the model does not take the batch.
    """
    try:
        return jax.eval_shape(forward)
    except NOT_TAKEN as error:
        refuse(error, what)


def check_loss(loss: Callable[[Any, Any], Any], out: Any, batch: Any, what: str) -> None:
    """Runs a loss abstractly on a model's output and a batch.

    Raises:
        InputError: if the loss does not take them.
    """
    try:
        jax.eval_shape(loss, out, batch)
    except NOT_TAKEN as error:
        refuse(error, f"loss of {what}", "loss")


def check_answers(found: Signature, what: str, shares: Shares = none) -> None:
    """Refuses a batch that the loss of classes does not take, from shapes and dtypes alone.

    Args:
        found: its signature; "labels" (batch,) whole numbers; "weights" (batch,) or absent; "classes", a whole number
            or (batch,) of them, or absent.
        what: the batch, for the message.
        shares: which inputs have no batch axis.

    Raises:
        InputError: naming the array.
    """
    have = {name: (shape, dtype) for name, shape, dtype in found}
    count = counted(found, shares)
    size = () if count is None else (count,)
    if "labels" not in have:
        got = "several arrays" if any(name.startswith("labels/") for name in have) else "nothing"
        fix = 'pass {"inputs": array, "labels": array}, or a loss of your own'
        raise InputError(message(f"labels of {what}", got=got, expected=f"one array of shape {size}", fix=fix))
    shapes = {"labels": (size,), "weights": (size,), "classes": ((), size)}
    fixes = {
        "labels": "pass one class's number per example: labels.argmax(-1) of one-hot ones, labels[:, 0] of a column",
        "weights": "pass one number per example",
        "classes": "pass the task's number of classes",
    }
    for name in (name for name in shapes if name in have):
        shape, dtype = have[name]
        where = f"{name} of {what}"
        if shape not in shapes[name]:
            expected = " or ".join(f"shape {each}" for each in shapes[name])
            raise InputError(message(where, got=f"shape {shape}", expected=expected, fix=fixes[name]))
        if name != "weights" and jnp.dtype(dtype).kind not in "biu":
            fix = "pass the classes' numbers, or a loss of your own" if name == "labels" else fixes[name]
            raise InputError(message(where, got=f"dtype {dtype}", expected="whole numbers", fix=fix))


def check_labels(batch: Mapping[str, Any], width: int | None, what: str, *, fetch: bool = False) -> None:
    """Refuses labels that no class has, and classes that the model has no output for; weight 0 excuses an example.

    Args:
        batch: with "labels" (batch,); "classes", all of `width` if absent; "weights", all 1 if absent.
        width: outputs of the model; None if they are no classes, and then nothing is checked.
        what: the batch, for the message.
        fetch: also look at arrays on a device, waiting for them.

    Raises:
        InputError: naming the first such number or label.
    """
    if width is None:
        return
    if "classes" in batch:
        _check_classes(batch, width, what, fetch)
    if not (fetch or isinstance(batch["labels"], np.ndarray)):
        return
    labels = np.asarray(batch["labels"])
    classes = np.broadcast_to(np.asarray(batch.get("classes", width)), labels.shape)
    counts = np.asarray(batch.get("weights", np.ones(labels.shape))) > 0
    wrong = counts & ((labels < 0) | (labels >= classes))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        where, got = f"labels of {what}, example {place}", int(labels.flat[place])
        raise InputError(message(where, got=got, expected=f"0 to {int(classes.flat[place]) - 1}", fix=CLASSES))


def check_numbers(batch: Mapping[str, Any], what: str, *, weighted: bool, fetch: bool = False) -> None:
    """Refuses labels that are NaN or infinite; weight 0 excuses an example.

    Args:
        batch: with one array of "labels", or without; "weights", all 1 if absent.
        what: the batch, for the message.
        weighted: whether the loss reads "weights" as such.
        fetch: also look at labels on a device, waiting for them.

    Raises:
        InputError: naming the first example with such a label.
    """
    labels = batch.get("labels")
    if not isinstance(labels, (np.ndarray, jax.Array) if fetch else np.ndarray) or not labels.ndim:
        return
    if not jnp.issubdtype(labels.dtype, jnp.inexact):
        return
    numbers = np.asarray(labels)
    wrong = ~np.isfinite(numbers)
    if weighted and wrong.any() and "weights" in batch and np.shape(batch["weights"]) == numbers.shape:
        wrong &= np.asarray(batch["weights"]) > 0
    if wrong.any():
        place = np.argwhere(wrong)[0]
        where, fix = f"labels of {what}, example {place[0]}", "give it a number, or weigh the example with 0"
        raise InputError(message(where, got=numbers[tuple(place)], expected="a finite number", fix=fix))


def not_finite_input(inputs: Any) -> tuple[str, int] | None:
    """Where an input has the first number that is NaN or infinite; None where there is none, or it is on a device.

    That alone is no fault, since a mask may hold -inf. One pass over memory: a sum shows whether to look.

    Args:
        inputs: a tree of arrays (examples, ...).

    Returns:
        The input's path and the example.

    >>> not_finite_input({"x": np.array([[1.0], [np.nan]])})
    ("['x']", 1)
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        if not isinstance(leaf, np.ndarray) or not leaf.ndim or not np.issubdtype(leaf.dtype, np.floating):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(leaf.sum()):
                continue
        if (wrong := ~np.isfinite(leaf)).any():
            return jax.tree_util.keystr(path), int(np.argwhere(wrong)[0][0])
    return None


def refuse_input(place: tuple[str, int] | None, what: str) -> None:
    """Refuses the input that made a loss a bad one, from `not_finite_input`; nothing where there is none."""
    if place is not None:
        path, example = place
        fix = "give it finite numbers, or leave the example out"
        where = f"inputs{path} of {what}, example {example}"
        raise InputError(message(where, got="a number that is not finite", expected="finite numbers", fix=fix))


def _check_classes(batch: Mapping[str, Any], width: int, what: str, fetch: bool) -> None:
    classes, weights = batch["classes"], batch.get("weights", 1)
    each = np.ndim(classes) > 0
    if not fetch and (isinstance(classes, jax.Array) or (each and isinstance(weights, jax.Array))):
        return
    numbers = np.asarray(classes)
    wrong = ((numbers < 1) | (numbers > width)) & (np.asarray(weights) > 0 if each else True)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        where = f"classes of {what}, example {place}" if each else f"classes of {what}"
        expected = f"1 to {width}, the outputs of the model"
        raise InputError(message(where, got=int(numbers.flat[place]), expected=expected, fix=CLASSES))


class ExampleCount:
    """Counts a task's examples of weight above 0, and refuses weights that are no numbers of at least 0.

    Weights of NumPy are read at once. Those on a device are read together some batches later, so that nothing waits.
    """

    def __init__(self, weighted: bool) -> None:
        """Has counted nothing; every example counts unless `weighted`, as for a loss with another use for weights."""
        self._weighted = weighted
        self._count = 0
        self._queue: list[tuple[str, jax.Array]] = []

    def add(self, batch: Mapping[str, Any], what: str, examples: int) -> None:
        """Takes a batch of so many examples, padding included.

        Raises:
            InputError: naming the first weight that is none, of this batch or of one before it.
        """
        weights = batch.get("weights") if self._weighted else None
        if weights is None:
            self._count += examples
        elif isinstance(weights, jax.Array):
            self._queue.append((what, weights))
            if len(self._queue) >= BEHIND:
                self.total()
        else:
            self._count += _counting(weights, what)

    def total(self) -> int:
        """How many examples count, of all batches.

        Raises:
            InputError: naming the first weight that is none.
        """
        queue, self._queue = self._queue, []
        for (what, _), weights in zip(queue, jax.device_get([weights for _, weights in queue]), strict=True):
            self._count += _counting(weights, what)
        return self._count


def _counting(weights: Any, what: str) -> int:
    numbers = np.asarray(weights)
    wrong = ~((numbers >= 0) & (numbers < np.inf))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        where, fix = f"weights of {what}, example {place}", "weigh an example with 1, and padding with 0"
        raise InputError(message(where, got=numbers.flat[place], expected="a number of at least 0", fix=fix))
    return int(np.count_nonzero(numbers > 0))
