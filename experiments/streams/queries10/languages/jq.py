"""jq: the input is one object with an array of rows for each table."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query

_FUNCTIONS = {"avg": "add / length", "sum": "add", "min": "min", "max": "max"}


def jq(query: Query) -> str:
    """The answer as one filter."""
    column, by = query.column, query.by
    rows, test = f".{query.table}[]", _test(query)
    if query.joins:
        rows = f"JOIN(INDEX(.{query.other.name}[]; .id); {rows}; .{query.main.key} | tostring; add)"
    chosen = f"{rows} | {test}" if test else rows
    array = f"[{chosen}]" if test or query.joins else f".{query.table}"
    number = _FUNCTIONS.get(query.aggregate, "")
    value = f"(map(.{column}) | {number})"
    match query.kind:
        case "filter" | "filter_and" | "join":
            return f"{chosen} | .{column}"
        case "count" | "join_count":
            return f"{array} | length"
        case "aggregate":
            return f"[{chosen} | .{column}] | {number}"
        case "distinct":
            return f"[{chosen} | .{column}] | unique"
        case "order":
            return f"{array} | {_order(query)}[].{column}"
        case "top":
            return f"{array} | {_order(query)}[:{query.limit}][].{column}"
        case "group_count":
            return f"{array} | group_by(.{by})[] | {{{by}: .[0].{by}, count: length}}"
        case "group_aggregate" | "join_aggregate":
            return f"{array} | group_by(.{by})[] | {{{by}: .[0].{by}, value: {value}}}"
        case "having":
            return f"{array} | group_by(.{by})[] | select(length > {query.limit})[0].{by}"
        case _:
            return f"{array} | group_by(.{by}) | max_by(length)[0].{by}"


def _order(query: Query) -> str:
    return f"sort_by({'-' if query.descending else ''}.{query.by})"


def _test(query: Query) -> str:
    signs = {"=": "==", ">": ">", "<": "<"}
    parts = [f".{c.column} {signs[c.operator]} {quoted(c.value)}" for c in query.where]
    return f"select({' and '.join(parts)})" if parts else ""
