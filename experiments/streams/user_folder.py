"""What streams from a user's folder share: the order of the tasks, and one error that lists what is wrong with rows."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.streams.held_out import drawn
from experiments.streams.sample import balanced, check_limit
from share_jax.errors import FormatError, InputError, message

ORDER = "stream.json"
"""File of the folder that says in which order the tasks are learnt."""

_DATA = (".csv", ".json", ".jsonl", ".tsv", ".parquet", ".xlsx", ".gz", ".zip")
"""Endings of files that somebody may take for data of a task."""

SHOWN = 10
"""Bad rows that an error lists."""


def user_folder(folder: Path | None, expected: str) -> Path:
    """The folder of `--data-folder`.

    Raises:
        InputError: there is none.
    """
    if folder is None or not folder.is_dir():
        got = "none" if folder is None else f"{folder}, which is no folder"
        fix = "pass --data-folder FOLDER"
        raise InputError(message("--data-folder", got=got, expected=expected, fix=fix))
    return folder


def data_files(root: Path, types: Sequence[str]) -> list[Path]:
    """The folder's visible files of some endings, in any case, by name.

    Raises:
        InputError: there is a file of data that would not be read.
    """
    found = [path for path in sorted(root.iterdir()) if path.is_file() and not path.name.startswith(".")]
    for path in found:
        if path.suffix.lower() in _DATA and path.suffix.lower() not in types and path.name != ORDER:
            fix = "write it anew as one, or move it out of the folder"
            raise InputError(message(str(path), got=f"a file {path.suffix}", expected=" or ".join(types), fix=fix))
    return [path for path in found if path.suffix.lower() in types]


def ordered(names: Sequence[str], folder: Path) -> list[str]:
    """The tasks in the order of `stream.json`, {"tasks": [names]}; by name without it.

    Raises:
        FormatError: it cannot be read, or does not name each task once.
    """
    path, usual = folder / ORDER, sorted(names)
    if not path.exists():
        return usual
    expected = f'{{"tasks": [...]}} with each of {", ".join(usual)} once'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        if isinstance(found, list) and sorted(found) == usual:
            return found
        got: object = found
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        got = f"no {error} in it" if isinstance(error, KeyError) else error
    raise FormatError(message(str(path), got=got, expected=expected, fix="correct it, or delete it to go by name"))


def refuse(folder: Path, bad: Sequence[str], what: str) -> None:
    """Refuses a folder with bad rows or files.

    Args:
        folder: of the stream.
        bad: a line for each, with its place, what is wrong, and how to fix it.
        what: "row" or "file".

    Raises:
        FormatError: there is one; its first line has their number, and up to ten lines follow.
    """
    if not bad:
        return
    many = f"{len(bad)} bad {what}{'s' if len(bad) > 1 else ''}"
    lines = [message(f"--data-folder {folder}", got=many, expected="none", fix="fix what is listed"), *bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"and {len(bad) - SHOWN} more")
    raise FormatError("\n  ".join(lines))


def sides(
    labels: np.ndarray, classes: int, key: Sequence[int], limits: tuple[int | None, int | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and to be tested on, where a task has no test of its own: a fifth of each class is the test.

    Args:
        labels: (N,) of all rows.
        classes: of the task.
        key: seeds the draw.
        limits: most rows of (train, test); None is all.
    """
    tested = drawn(labels, classes, np.random.default_rng([*key, 0]))
    own, held = np.flatnonzero(~tested), np.flatnonzero(tested)
    train, test = drawn_sides(labels[own], labels[held], classes, key, limits)
    return own[train], held[test]


def drawn_sides(
    labels: np.ndarray, tested: np.ndarray, classes: int, key: Sequence[int], limits: tuple[int | None, int | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows to learn from and to be tested on, where a task has a test of its own; see `sides`.

    Args:
        labels: (N,) of the training rows.
        tested: (M,) of the test rows.
        classes: of the task.
        key: seeds the draws.
        limits: most rows of (train, test), shared equally among the classes; None is all.

    Raises:
        InputError: the limit leaves a class without a row to learn from.
    """
    check_limit(limits[0], classes, "training examples of a task", "raise --train-per-task")
    return _few(labels, limits[0], [*key, 1]), _few(tested, limits[1], [*key, 2])


def _few(labels: np.ndarray, limit: int | None, key: Sequence[int]) -> np.ndarray:
    return np.arange(len(labels)) if limit is None else balanced(labels, limit, np.random.default_rng(list(key)))


def check_test(path: Path, count: int, fix: str) -> None:
    """Refuses a task that leaves nothing to be tested on.

    Raises:
        InputError: `count` is 0.
    """
    if not count:
        expected = "at least one, a fifth of each class of three examples or more"
        raise InputError(message(f"test examples of {path}", got="none", expected=expected, fix=fix))
