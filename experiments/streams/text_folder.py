"""Texts of a user's own: a folder with one CSV or JSONL file for each task.

    FOLDER/reviews.csv        a header with `text`, `label` and, for pairs, `text_b`; other columns are not read
    FOLDER/questions.jsonl    an object per line with the same names
    FOLDER/reviews.test.csv   what is tested on; without it a fifth of each class is held out by the seed
    FOLDER/stream.json        {"tasks": ["reviews", "questions"]}; by name without it

A label is a word or a whole number; the classes of a task are the labels of its training rows in alphabetical order.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.streams.base import TextTask
from experiments.streams.user_folder import (
    check_test,
    data_files,
    drawn_sides,
    ordered,
    refuse,
    sides,
    user_folder,
)
from share_jax.errors import InputError, message
from share_jax.text.examples import has_half_letter

COLUMNS = ("text", "label")
PAIR = "text_b"
_TYPES = (".csv", ".jsonl")
_TEST = ".test"
_EXPECTED = "a folder with one CSV or JSONL file per task"


@dataclass(frozen=True, eq=False)
class Rows:
    """What one file holds: texts, labels and the lines where rows begin; and for each bad row its line and an error."""

    path: Path
    texts: list[Any] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, line: int, got: object, expected: str, fix: str) -> None:
        """Notes a bad row."""
        self.bad.append((line, message(f"{self.path.name} line {line}", got=got, expected=expected, fix=fix)))


def text_folder(
    folder: Path | None,
    *,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> tuple[TextTask, ...]:
    """A task for each file of a folder.

    Args:
        folder: see the module.
        seed: of the held-out rows and of the subsets.
        train_per_task: most training texts of a task, shared equally among its classes; None is all.
        test_per_task: the same for the test.

    Raises:
        InputError: no folder, no files, a task in two files, or one with nothing to be tested on.
        FormatError: bad rows, up to ten of them listed with file, line and remedy; or `stream.json` is wrong.
    """
    root = user_folder(folder, _EXPECTED)
    files = _files(root)
    found = {name: read_rows(path) for name, path in files.items()}
    names = ordered([name for name in files if not name.endswith(_TEST)], root)
    for name in names:
        if (test := found.get(name + _TEST)) is not None:
            _check_test_rows(found[name], test)
    refuse(root, [error for name in sorted(found) for _, error in sorted(found[name].bad)], "row")
    limits = (train_per_task, test_per_task)
    return tuple(_task(name, found[name], found.get(name + _TEST), [seed, t], limits) for t, name in enumerate(names))


def _files(root: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in data_files(root, _TYPES):
        if path.stem in files:
            got = f"{files[path.stem].name} and {path.name}"
            raise InputError(message(f"task {path.stem!r}", got=got, expected="one file", fix="delete one of them"))
        files[path.stem] = path
    if not files:
        fix = "put FOLDER/TASK.csv or FOLDER/TASK.jsonl there"
        raise InputError(message(f"--data-folder {root}", got="no such file", expected=_EXPECTED, fix=fix))
    for name in files:
        if name.endswith(_TEST) and (own := name.removesuffix(_TEST)) not in files:
            what, fix = f"training file of task {own!r}", f"add {own}.csv or {own}.jsonl"
            raise InputError(message(what, got="none", expected=f"one beside {files[name].name}", fix=fix))
    return files


def read_rows(path: Path) -> Rows:
    """The rows of a file, with what is wrong with the others."""
    rows, data = Rows(path), path.read_bytes()
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        rows.refuse(line, "bytes that are no UTF-8", "UTF-8 text", "save the file as UTF-8")
        return rows
    parts = _csv(content, rows) if path.suffix.lower() == ".csv" else _jsonl(content, rows)
    found = list(parts)
    pairs = any(record.get(PAIR) not in (None, "") for _, record in found)
    for line, record in found:
        if (problem := _problem(record, pairs)) is not None:
            rows.refuse(line, *problem)
            continue
        rows.texts.append((record["text"], record[PAIR]) if pairs else record["text"])
        rows.labels.append(str(record["label"]).strip())
        rows.lines.append(line)
    if not found and not rows.bad:
        rows.refuse(1, "no rows", "a row for each example", "add rows, or delete the file")
    return rows


def _csv(content: str, rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # a text may be long
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if missing := [name for name in COLUMNS if name not in header]:
                    fix = f"name the columns in the first row, such as {','.join(COLUMNS)}"
                    rows.refuse(start, f"columns {', '.join(header)}", f"also {', '.join(missing)}", fix)
                    return
            elif len(cells) != len(header):
                got, expected = f"{len(cells)} cells", f"{len(header)}, as the first row"
                rows.refuse(start, got, expected, 'put text with commas or line ends into "quotes"')
            else:
                yield start, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        rows.refuse(line, error, "a row of CSV", 'close the quotes, and write a quote within a text as ""')


def _jsonl(content: str, rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        fix = 'write one object per line, such as {"text": "...", "label": "..."}'
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            rows.refuse(line, error, "JSON", fix)
            continue
        if isinstance(record, dict):
            yield line, record
        else:
            rows.refuse(line, type(record).__name__, "an object", fix)


def _problem(record: dict[str, Any], pairs: bool) -> tuple[object, str, str] | None:
    """What is wrong with a row: what was found, what was expected, and how to fix it."""
    for name in ("text", PAIR) if pairs else ("text",):
        text = record.get(name)
        if not isinstance(text, str) or not text.strip():
            got = "none" if name not in record else repr(text)
            return f"{name} {got}", "a text that is not empty", f"add a {name}, or delete the row"
        if has_half_letter(text):
            return f"{name} with half a letter", "whole letters", "correct the escape \\uD800 to \\uDFFF in it"
    label = record.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        got = "none" if "label" not in record else repr(label)
        return f"label {got}", "a word or a whole number", "add a label, or delete the row"
    return None


def _check_test_rows(train: Rows, test: Rows) -> None:
    known = set(train.labels)
    kinds = ["pairs" if rows.texts and isinstance(rows.texts[0], tuple) else "single texts" for rows in (train, test)]
    if train.texts and test.texts and kinds[0] != kinds[1]:
        fix = f"give both files a column {PAIR}, or neither"
        test.refuse(test.lines[0], kinds[1], f"{kinds[0]}, as {train.path.name} has", fix)
    for line, label in zip(test.lines, test.labels, strict=True):
        if label not in known:
            fix = f"add rows with that label to {train.path.name}, or correct it"
            test.refuse(line, f"label {label!r}", f"a label of {train.path.name}", fix)


def _task(
    name: str, train: Rows, test: Rows | None, key: Sequence[int], limits: tuple[int | None, int | None]
) -> TextTask:
    classes = sorted(set(train.labels))
    number = {label: index for index, label in enumerate(classes)}
    labels = np.array([number[label] for label in train.labels], np.int32)
    if test is None:
        own, held = sides(labels, len(classes), key, limits)
        tested, tested_labels = train, labels
    else:
        tested, tested_labels = test, np.array([number[label] for label in test.labels], np.int32)
        own, held = drawn_sides(labels, tested_labels, len(classes), key, limits)
    check_test(train.path, len(held), f"add {name}.test{train.path.suffix}, or give each label three rows")
    sides_of = [_texts(train, own), labels[own], _texts(tested, held), tested_labels[held]]
    return TextTask(name, tuple(classes), *sides_of)


def _texts(rows: Rows, places: np.ndarray) -> Any:
    return tuple(rows.texts[place] for place in places)
