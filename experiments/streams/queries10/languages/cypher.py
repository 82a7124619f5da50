"""Cypher: a row is a node with the label of its table in the singular; what it refers to is a relationship."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query


def cypher(query: Query) -> str:
    """The answer as one MATCH."""
    label = query.main.singular.capitalize()
    where = _where(query, "b" if query.joins else "n")
    start = f"MATCH (n:{label}){where}"
    if query.joins:
        start = f"MATCH (a:{label})-[:{query.main.key.upper()}]->(b:{query.other.singular.capitalize()}){where}"
    column, by = f"n.{query.column}", f"n.{query.by}"
    down = " DESC" if query.descending else ""
    match query.kind:
        case "filter" | "filter_and":
            return f"{start} RETURN {column}"
        case "count" | "join_count":
            return f"{start} RETURN count(*)"
        case "aggregate":
            return f"{start} RETURN {query.aggregate}({column})"
        case "distinct":
            return f"{start} RETURN DISTINCT {column}"
        case "order":
            return f"{start} RETURN {column} ORDER BY {by}{down}"
        case "top":
            return f"{start} RETURN {column} ORDER BY {by}{down} LIMIT {query.limit}"
        case "group_count":
            return f"{start} RETURN {by}, count(*)"
        case "group_aggregate":
            return f"{start} RETURN {by}, {query.aggregate}({column})"
        case "having":
            return f"{start} WITH {by} AS {query.by}, count(*) AS k WHERE k > {query.limit} RETURN {query.by}"
        case "most":
            return f"{start} WITH {by} AS {query.by}, count(*) AS k RETURN {query.by} ORDER BY k DESC LIMIT 1"
        case "join":
            return f"{start} RETURN a.{query.column}"
        case _:
            return f"{start} RETURN b.{query.by}, {query.aggregate}(a.{query.column})"


def _where(query: Query, node: str) -> str:
    parts = [f"{node}.{c.column} {c.operator} {quoted(c.value, chr(39))}" for c in query.where]
    return f" WHERE {' AND '.join(parts)}" if parts else ""
