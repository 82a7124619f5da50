"""Polars in Python: every table is a DataFrame of its own name, the library is `pl`."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query

_FUNCTIONS = {"avg": "mean()", "sum": "sum()", "min": "min()", "max": "max()"}


def polars_frames(query: Query) -> str:
    """The answer as one expression."""
    name, column, by = query.table, f'"{query.column}"', f'"{query.by}"'
    if query.joins:
        name += f'.join({query.other.name}, left_on="{query.main.key}", right_on="id")'
    rows = f"{name}{_filter(query)}"
    number = f"pl.col({column}).{_FUNCTIONS.get(query.aggregate, '')}"
    order = f".sort({by}{', descending=True' if query.descending else ''})"
    match query.kind:
        case "filter" | "filter_and" | "join":
            return f"{rows}.select({column})"
        case "count" | "join_count":
            return f"{rows}.height"
        case "aggregate":
            return f"{rows}.select({number})"
        case "distinct":
            return f"{rows}.select({column}).unique()"
        case "order":
            return f"{rows}{order}.select({column})"
        case "top":
            return f"{rows}{order}.head({query.limit}).select({column})"
        case "group_count":
            return f"{rows}.group_by({by}).len()"
        case "group_aggregate" | "join_aggregate":
            return f"{rows}.group_by({by}).agg({number})"
        case "having":
            return f'{rows}.group_by({by}).len().filter(pl.col("len") > {query.limit}).select({by})'
        case _:
            return f'{rows}.group_by({by}).len().sort("len", descending=True).head(1).select({by})'


def _filter(query: Query) -> str:
    signs = {"=": "==", ">": ">", "<": "<"}
    parts = [f'pl.col("{c.column}") {signs[c.operator]} {quoted(c.value)}' for c in query.where]
    return f".filter({', '.join(parts)})" if parts else ""
