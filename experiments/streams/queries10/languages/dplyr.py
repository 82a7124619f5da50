"""dplyr, with R's own pipe: every table is a data frame of its own name."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query

_FUNCTIONS = {"avg": "mean", "sum": "sum", "min": "min", "max": "max"}


def dplyr(query: Query) -> str:
    """The answer as one pipeline."""
    column, by = query.column, query.by
    number = f"summarise(value = {_FUNCTIONS.get(query.aggregate, '')}({column}))"
    arrange = f"arrange({f'desc({by})' if query.descending else by})"
    match query.kind:
        case "filter" | "filter_and" | "join":
            steps = [f"select({column})"]
        case "count" | "join_count":
            steps = ["count()"]
        case "aggregate":
            steps = [number]
        case "distinct":
            steps = [f"distinct({column})"]
        case "order":
            steps = [arrange, f"select({column})"]
        case "top":
            steps = [arrange, f"head({query.limit})", f"select({column})"]
        case "group_count":
            steps = [f"count({by})"]
        case "group_aggregate" | "join_aggregate":
            steps = [f"group_by({by})", number]
        case "having":
            steps = [f"count({by})", f"filter(n > {query.limit})", f"select({by})"]
        case _:
            steps = [f"count({by}, sort = TRUE)", "head(1)", f"select({by})"]
    return " |> ".join([query.table, *_join(query), *_filter(query), *steps])


def _join(query: Query) -> list[str]:
    return [f'inner_join({query.other.name}, by = c("{query.main.key}" = "id"))'] if query.joins else []


def _filter(query: Query) -> list[str]:
    signs = {"=": "==", ">": ">", "<": "<"}
    parts = [f"{c.column} {signs[c.operator]} {quoted(c.value)}" for c in query.where]
    return [f"filter({', '.join(parts)})"] if parts else []
