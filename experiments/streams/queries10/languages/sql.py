"""SQL, as SQLite, PostgreSQL and MySQL take it."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query


def sql(query: Query) -> str:
    """The answer as one SELECT."""
    name, column, by = query.table, query.column, query.by
    start, end = f"FROM {name}{_where(query)}", "DESC" if query.descending else "ASC"
    match query.kind:
        case "filter" | "filter_and":
            return f"SELECT {column} {start}"
        case "count":
            return f"SELECT COUNT(*) {start}"
        case "aggregate":
            return f"SELECT {query.aggregate.upper()}({column}) {start}"
        case "distinct":
            return f"SELECT DISTINCT {column} {start}"
        case "order":
            return f"SELECT {column} {start} ORDER BY {by} {end}"
        case "top":
            return f"SELECT {column} {start} ORDER BY {by} {end} LIMIT {query.limit}"
        case "group_count":
            return f"SELECT {by}, COUNT(*) {start} GROUP BY {by}"
        case "group_aggregate":
            return f"SELECT {by}, {query.aggregate.upper()}({column}) {start} GROUP BY {by}"
        case "having":
            return f"SELECT {by} {start} GROUP BY {by} HAVING COUNT(*) > {query.limit}"
        case "most":
            return f"SELECT {by} {start} GROUP BY {by} ORDER BY COUNT(*) DESC LIMIT 1"
    joined = f"FROM {name} a JOIN {query.other.name} b ON a.{query.main.key} = b.id{_where(query, 'b.')}"
    match query.kind:
        case "join":
            return f"SELECT a.{column} {joined}"
        case "join_count":
            return f"SELECT COUNT(*) {joined}"
        case _:
            return f"SELECT b.{by}, {query.aggregate.upper()}(a.{column}) {joined} GROUP BY b.{by}"


def _where(query: Query, table: str = "") -> str:
    conditions = [f"{table}{c.column} {c.operator} {quoted(c.value, chr(39))}" for c in query.where]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
