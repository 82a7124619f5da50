"""queries10 as ten tasks, one for each language: the same questions in every one.

A prompt has the question and the language, so that one adapter could know all ten; its first line is the same in all
languages:

    How many products are there where category is food?
    SQL:
"""

import zlib
from collections.abc import Mapping
from functools import partial

from experiments.streams.queries10.execution import executed, runners
from experiments.streams.queries10.languages import LANGUAGES
from experiments.streams.queries10.query import KINDS, MAIN_KINDS, Query
from experiments.streams.queries10.questions import questions
from experiments.streams.queries10.wordings import WORDINGS, wording
from experiments.streams.text_tasks import Check, CompletionTask
from share_jax.errors import InputError, message
from share_jax.text.examples import Example

TESTS = ("test", "unseen_tables")
"""Questions that are not in training, about its tables and about two others."""

TRAIN_PER_TASK, TEST_PER_TASK, UNSEEN_PER_TASK = 480, 112, 56


def queries10(
    *,
    seed: int = 0,
    train_per_task: int | None = TRAIN_PER_TASK,
    test_per_task: int | None = TEST_PER_TASK,
    unseen_per_task: int | None = UNSEEN_PER_TASK,
    languages: tuple[str, ...] = tuple(LANGUAGES),
    kinds: tuple[str, ...] = MAIN_KINDS,
) -> tuple[CompletionTask, ...]:
    """A task for each language.

    Args:
        seed: of the questions and of their wordings.
        train_per_task: the first of all training questions; None is every one. The kinds take turns.
        test_per_task: the same of the test's.
        unseen_per_task: the same of the questions about the two unseen tables.
        languages: which, in which order.
        kinds: what is asked, of `KINDS`.

    Raises:
        InputError: a number below 1, or an unknown language or kind.
    """
    parts = {"train": train_per_task, "test": test_per_task, "unseen_tables": unseen_per_task}
    for part, limit in parts.items():
        if limit is not None and limit < 1:
            what = f"questions of {part}"
            raise InputError(message(what, got=limit, expected="at least 1, or None", fix="pass a larger number"))
    for what, given, known in (("language", languages, LANGUAGES), ("kind of question", kinds, KINDS)):
        if unknown := [name for name in given if name not in known]:
            expected = ", ".join(known)
            raise InputError(message(what, got=repr(unknown[0]), expected=expected, fix="choose one of them"))
    chosen = {part: questions(part, seed, kinds)[:limit] for part, limit in parts.items()}
    return tuple(_task(language, chosen, seed) for language in languages)


def example(query: Query, language: str, way: int) -> Example:
    """A question with its answer in one language, in one of the four wordings."""
    return Example(f"{wording(query, way)}\n{language}:\n", LANGUAGES[language](query))


def way_of(query: Query, seed: int = 0) -> int:
    """The wording that a question is put in: the same in every language, whatever other questions there are."""
    return zlib.crc32(f"{seed} {query}".encode()) % WORDINGS


def _task(language: str, chosen: Mapping[str, tuple[Query, ...]], seed: int) -> CompletionTask:
    sets = {
        part: tuple(example(query, language, way_of(query, seed)) for query in queries)
        for part, queries in chosen.items()
    }
    checks: dict[str, tuple[Check, ...]] = {}
    if language in runners():
        checks = {part: tuple(partial(_check, language, query) for query in chosen[part]) for part in TESTS}
    return CompletionTask(language, sets["train"], {part: sets[part] for part in TESTS}, "exact", checks=checks)


def _check(language: str, query: Query, written: str) -> bool:
    return executed(language, written, query)
