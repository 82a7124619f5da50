"""Every question that can be asked, and which of them are learnt from and tested on.

A question is tested on if no training question has its kind, table, columns and values: another wording alone does not
make it unseen.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np

from experiments.streams.queries10.query import AGGREGATES, KINDS, Condition, Query
from experiments.streams.queries10.tables import SEEN, UNSEEN, Table

TESTED = 0.2
"""Part of the questions of each kind and table that is tested on."""

_LIMITS = range(2, 9)


def _words(table: Table) -> list[Condition]:
    return [Condition(column, "=", word) for column, words in table.words.items() for word in words]


def _numbers(table: Table) -> list[Condition]:
    return [
        Condition(column, operator, value)
        for column, (low, high, step) in table.numbers.items()
        for value in range(low, high + 1, step)
        for operator in "><"
    ]


def _filters(table: Table) -> Iterator[Query]:
    """The questions that show or count rows."""
    name, words, numbers = table.name, _words(table), _numbers(table)
    shown = [column for column in table.columns if column not in ("id", table.key) or column == table.label]
    for condition in [*words, *numbers]:
        yield Query("count", name, where=(condition,))
        yield from (Query("filter", name, column, (condition,)) for column in shown if column != condition.column)
    for word, number in product(words, numbers):
        columns = [column for column in shown if column not in (word.column, number.column)]
        yield from (Query("filter_and", name, column, (word, number)) for column in columns)
    for word, by, down in product(words, table.numbers, (True, False)):
        yield Query("order", name, table.label, (word,), by, descending=down)
    for column, by, down, limit in product(shown, table.numbers, (True, False), _LIMITS):
        if column != by:
            yield Query("top", name, column, by=by, descending=down, limit=limit)
    for column, condition in product(table.words, numbers):
        yield Query("distinct", name, column, (condition,))


def _groups(table: Table) -> Iterator[Query]:
    """The questions that aggregate."""
    name, numbers = table.name, _numbers(table)
    for column, how, condition in product(table.numbers, AGGREGATES, _words(table)):
        yield Query("aggregate", name, column, (condition,), aggregate=how)
    for by, where in product(table.words, [(), *((condition,) for condition in numbers)]):
        yield Query("group_count", name, where=where, by=by)
        yield Query("most", name, where=where, by=by)
    for by, column, how in product(table.words, table.numbers, AGGREGATES):
        yield Query("group_aggregate", name, column, by=by, aggregate=how)
    for by, limit in product(table.words, _LIMITS):
        yield Query("having", name, by=by, limit=limit)


def _joins(table: Table, other: Table) -> Iterator[Query]:
    shown = [column for column in (table.label, *table.words, *table.numbers) if column != "id"]
    for condition in [*_words(other), *_numbers(other)]:
        yield Query("join_count", table.name, where=(condition,))
        yield from (Query("join", table.name, column, (condition,)) for column in shown)
    for by, column, how in product(other.words, table.numbers, AGGREGATES):
        yield Query("join_aggregate", table.name, column, by=by, aggregate=how)


def questions_of(tables: Sequence[Table]) -> tuple[Query, ...]:
    """Every question about some tables; those that join need both tables among them."""
    names = {table.name: table for table in tables}
    found: list[Query] = []
    for table in tables:
        found += [*_filters(table), *_groups(table)]
        if table.refers in names:
            found += _joins(table, names[table.refers])
    return tuple(found)


@cache
def questions(part: str, seed: int = 0, kinds: tuple[str, ...] = tuple(KINDS)) -> tuple[Query, ...]:
    """All questions of "train", "test" or "unseen_tables" in a drawn order, the kinds in turn as long as each lasts.

    The first few are therefore a smaller set of the same make-up, and a larger one has them, too.

    Args:
        part: of the questions.
        seed: of the order, and of which questions are tested on.
        kinds: what is asked.
    """
    tables = UNSEEN if part == "unseen_tables" else SEEN
    groups: dict[tuple[str, str], list[Query]] = {(kind, table.name): [] for kind in KINDS for table in tables}
    for query in questions_of(tables):
        groups[query.kind, query.table].append(query)
    lines = []
    for number, kind in enumerate(KINDS):
        if kind not in kinds:
            continue
        chosen = []
        for place, table in enumerate(tables):
            group = groups[kind, table.name]
            order = np.random.default_rng([seed, number, place]).permutation(len(group))
            cut = round(TESTED * len(group)) if tables is SEEN else 0
            chosen.append([group[index] for index in (order[:cut] if part == "test" else order[cut:])])
        lines.append(list(_in_turn(chosen, np.random.default_rng([seed, number, len(tables)]))))
    return tuple(_in_turn(lines))


def _in_turn(lines: Sequence[Sequence[Query]], rng: np.random.Generator | None = None) -> Iterator[Query]:
    """One of each line after the other, in a drawn order of the lines where there is a generator."""
    for turn in range(max(len(line) for line in lines)):
        here = [line[turn] for line in lines if turn < len(line)]
        yield from here if rng is None else [here[place] for place in rng.permutation(len(here))]
