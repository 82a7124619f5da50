"""KQL, Kusto's query language."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query


def kql(query: Query) -> str:
    """The answer as one pipeline."""
    column, by = query.column, query.by
    end = "desc" if query.descending else "asc"
    match query.kind:
        case "filter" | "filter_and" | "join":
            steps = [f"project {column}"]
        case "count" | "join_count":
            steps = ["count"]
        case "aggregate":
            steps = [f"summarize {query.aggregate}({column})"]
        case "distinct":
            steps = [f"distinct {column}"]
        case "order":
            steps = [f"sort by {by} {end}", f"project {column}"]
        case "top":
            steps = [f"top {query.limit} by {by} {end}", f"project {column}"]
        case "group_count":
            steps = [f"summarize count() by {by}"]
        case "group_aggregate" | "join_aggregate":
            steps = [f"summarize {query.aggregate}({column}) by {by}"]
        case "having":
            steps = [f"summarize n = count() by {by}", f"where n > {query.limit}", f"project {by}"]
        case _:
            steps = [f"summarize n = count() by {by}", "top 1 by n", f"project {by}"]
    return " | ".join([query.table, *_join(query), *_where(query), *steps])


def _join(query: Query) -> list[str]:
    if not query.joins:
        return []
    return [f"join kind=inner {query.other.name} on $left.{query.main.key} == $right.id"]


def _where(query: Query) -> list[str]:
    signs = {"=": "==", ">": ">", "<": "<"}
    parts = [f"{c.column} {signs[c.operator]} {quoted(c.value)}" for c in query.where]
    return [f"where {' and '.join(parts)}"] if parts else []
