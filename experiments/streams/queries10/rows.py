"""Rows for the tables, on which answers are run: made up by a seed, and fit for the question."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from experiments.streams.queries10.query import Query
from experiments.streams.queries10.reference import Rows, answer, is_plain
from experiments.streams.queries10.tables import TABLES

SIZE = 40
"""Rows of a table."""

_TRIES = 500


@lru_cache(maxsize=512)
def rows_of(name: str, seed: int) -> Rows:
    """The rows of one table: no number is twice in a column, so that no order is left open."""
    table = TABLES[name]
    rng = np.random.default_rng([seed, list(TABLES).index(name)])
    size = SIZE
    columns: dict[str, list] = {"id": list(range(1, size + 1))}
    if table.label != "id":
        columns[table.label] = [f"{table.label}{number}" for number in rng.permutation(size)]
    if table.refers:
        columns[table.key] = [int(number) for number in rng.integers(1, size + 1, size)]
    for column, words in table.words.items():
        columns[column] = [str(word) for word in rng.choice(words, size, p=rng.dirichlet(np.full(len(words), 3.0)))]
    for column, (low, high, step) in table.numbers.items():
        spread = max(high + step - max(0, low - step), size)
        columns[column] = [int(value) + max(0, low - step) for value in rng.permutation(spread)[:size]]
    return tuple({column: columns[column][place] for column in table.columns} for place in range(size))


def fitting_rows(query: Query, seed: int) -> Mapping[str, Rows]:
    """Rows of the question's tables for which its answer is not empty and leaves nothing open.

    Args:
        query: what is asked.
        seed: of the rows; others are taken where they do not fit.
    """
    for number in range(_TRIES):
        rows = {table.name: rows_of(table.name, seed * _TRIES + number) for table in query.tables}
        if is_plain(query, rows) and answer(query, rows):
            break
    else:
        raise LookupError(f"no rows fit {query}")
    return rows
