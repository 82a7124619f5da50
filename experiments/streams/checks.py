"""What a task's names, kind and labels have to be."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.task_metrics import OF_CLASSES, OF_NUMBERS, OF_TOKENS
from share_jax.errors import InputError, message

KINDS = {"classification": OF_CLASSES, "regression": OF_NUMBERS, "tokens": OF_TOKENS}
"""The kinds of task, and the metrics of each; the first is its default."""


def as_labels(labels: Any, what: str) -> np.ndarray:
    """Labels as int32 (N,), or as they are where they are float32 and finite; of tokens int32 (N, K), -1 for none."""
    array = np.asarray(labels)
    if array.ndim == 2 and np.issubdtype(array.dtype, np.integer) and array.size and array.min() >= -1:
        return array.astype(np.int32)
    if array.dtype == np.float32 and array.ndim == 1 and array.size and np.isfinite(array).all():
        return array
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or (array.size and array.min() < 0):
        got = f"{array.dtype} of shape {array.shape}"
        fix = "map the classes to 0, 1, 2, ..."
        raise InputError(message(what, got=got, expected="a vector of whole numbers of at least 0", fix=fix))
    return array.astype(np.int32)


def check_labels(what: str, labels: np.ndarray, classes: int, kind: str) -> None:
    """Refuses no labels, labels of another kind of task, and those that no class has."""
    fits = (labels.dtype.kind == "f") == (kind == "regression") and (labels.ndim == 2) == (kind == "tokens")
    if not fits and len(labels):
        expected = {"regression": "float32", "tokens": "whole numbers (examples, tokens)"}.get(kind, "whole numbers")
        got = labels.dtype if labels.ndim == 1 and kind != "tokens" else f"{labels.dtype} of shape {labels.shape}"
        raise InputError(
            message(what, got=got, expected=f"{expected} for {kind}", fix="convert them, or name the kind")
        )
    if not len(labels):
        raise InputError(message(what, got="none", expected="at least one example", fix="give it examples"))
    if kind == "classification" and (top := int(labels.max())) >= classes:
        raise InputError(message(what, got=top, expected=f"below {classes}, the classes", fix="number them from 0"))


def check_kind(name: str, kind: str, classes: tuple[str, ...], metric: str) -> str:
    """Refuses a task's name, kind, classes and metric where they do not fit; the metric, or the kind's own."""
    if kind == "classification":
        check_names(name, classes)
    elif classes or not name or kind not in KINDS:
        got = f"{kind!r} with classes {classes}"
        expected = "classification with classes, or regression or tokens with none"
        raise InputError(message(f"kind of task {name!r}", got=got, expected=expected, fix="correct the task"))
    known = tuple(KINDS[kind])
    if metric and metric not in known:
        what, expected = f"metric of task {name!r}", f"one of {', '.join(known)}"
        raise InputError(message(what, got=repr(metric), expected=expected, fix="choose one"))
    return metric or known[0]


def check_scored(name: str, metric: str, tests: Sequence[Any]) -> None:
    """Refuses test splits without what a metric needs: all answers of each question, or the lengths of the texts."""
    for test in tests:
        what = f"test of task {name!r}"
        if (metric == "option_accuracy") != (test.options > 1):
            fix = "give each question all of its allowed answers, or score it in another way"
            raise InputError(message(what, got=f"{test.options} answers for {metric}", expected="answers", fix=fix))
        if metric == "bits_saved" and test.nbytes is None:
            raise InputError(message(what, got="no nbytes", expected="the texts' lengths", fix="pass nbytes"))


def check_names(name: str, classes: tuple[str, ...]) -> None:
    """Refuses a task without a name or classes, or with a class twice."""
    if not name:
        raise InputError(message("task name", got=repr(name), expected="a name", fix="name the task"))
    if not classes:
        what = f"classes of task {name!r}"
        raise InputError(message(what, got="none", expected="at least one", fix="name its classes"))
    if twice := repeated(classes):
        what = f"classes of task {name!r}"
        raise InputError(message(what, got=f"{twice!r} twice", expected="unique names", fix="rename one"))


def repeated(names: Sequence[str]) -> str | None:
    """The first name that is there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
