"""What the answer of a question is, by plain Python over rows: what every language's answer is held against."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from experiments.streams.queries10.query import Query

Row = Mapping[str, Any]
Rows = tuple[Row, ...]

Answer = list[tuple[Any, ...]]
"""The rows of an answer."""

_NUMBERS: dict[str, Callable[[list], float]] = {
    "avg": lambda values: sum(values) / len(values),
    "sum": sum,
    "min": min,
    "max": max,
}


def _chosen(query: Query, tables: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """The rows that meet the conditions, joined where the question joins."""
    rows = [dict(row) for row in tables[query.table]]
    if query.joins:
        others = {row["id"]: row for row in tables[query.other.name]}
        rows = [{**others[row[query.main.key]], **row} for row in rows if row[query.main.key] in others]
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "=": lambda a, b: a == b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
    }
    return [row for row in rows if all(tests[c.operator](row[c.column], c.value) for c in query.where)]


def answer(query: Query, tables: Mapping[str, Rows]) -> Answer:
    """The rows that answer a question; none where there is nothing to aggregate.

    Args:
        query: what is asked.
        tables: the rows of each table that it needs.
    """
    rows = _chosen(query, tables)
    groups: dict[Any, list] = {}
    for row in rows:
        groups.setdefault(row.get(query.by), []).append(row.get(query.column))
    number = _NUMBERS.get(query.aggregate)
    match query.kind:
        case "count" | "join_count":
            return [(len(rows),)]
        case "aggregate" if number is not None:
            return [(number([row[query.column] for row in rows]),)] if rows else []
        case "distinct":
            return [(word,) for word in dict.fromkeys(row[query.column] for row in rows)]
        case "order" | "top":
            rows.sort(key=lambda row: row[query.by], reverse=query.descending)
            return [(row[query.column],) for row in rows[: query.limit or None]]
        case "group_count":
            return [(word, len(group)) for word, group in groups.items()]
        case "group_aggregate" | "join_aggregate" if number is not None:
            return [(word, number(group)) for word, group in groups.items()]
        case "having":
            return [(word,) for word, group in groups.items() if len(group) > query.limit]
        case "most":
            return [(max(groups, key=lambda word: len(groups[word])),)] if groups else []
        case _:
            return [(row[query.column],) for row in rows]


def is_plain(query: Query, tables: Mapping[str, Rows]) -> bool:
    """Whether the rows leave nothing open: one word alone is the most frequent, and a count is not of nothing."""
    rows = _chosen(query, tables)
    if query.kind == "most":
        counts = [count for _, count in Counter(row[query.by] for row in rows).most_common(2)]
        return len(counts) == 1 or (len(counts) == 2 and counts[0] > counts[1])
    return bool(rows)
