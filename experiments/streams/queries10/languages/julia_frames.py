"""Julia's DataFrames, with `mean` from Statistics: every table is a DataFrame of its own name."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Condition, Query

_FUNCTIONS = {"avg": "mean", "sum": "sum", "min": "minimum", "max": "maximum"}
_SIGNS = {"=": "==", ">": ">", "<": "<"}


def julia_frames(query: Query) -> str:
    """The answer as one expression."""
    name, column, by = query.table, query.column, query.by
    mask = _mask(query.where, name)
    rows = f"{name}[{mask}, :]" if mask else name
    function = _FUNCTIONS.get(query.aggregate, "")
    ordered = f"sort({rows}, :{by}{', rev=true' if query.descending else ''})"
    counted = f"combine(groupby({rows}, :{by}), nrow)"
    match query.kind:
        case "filter" | "filter_and":
            return f"{name}[{mask}, :{column}]"
        case "count":
            return f"count({mask})"
        case "aggregate":
            return f"{function}({name}[{mask}, :{column}])"
        case "distinct":
            return f"unique({name}[{mask}, :{column}])"
        case "order":
            return f"{ordered}.{column}"
        case "top":
            return f"first({ordered}, {query.limit}).{column}"
        case "group_count":
            return counted
        case "group_aggregate":
            return f"combine(groupby({name}, :{by}), :{column} => {function})"
        case "having":
            return f"subset({counted}, :nrow => n -> n .> {query.limit}).{by}"
        case "most":
            return f"first(sort({counted}, :nrow, rev=true)).{by}"
    joined = f"innerjoin({name}, {query.other.name}, on=:{query.main.key} => :id)"
    match query.kind:
        case "join":
            return f"subset({joined}, {_by_row(query.where[0])}).{column}"
        case "join_count":
            return f"nrow(subset({joined}, {_by_row(query.where[0])}))"
        case _:
            return f"combine(groupby({joined}, :{by}), :{column} => {function})"


def _mask(conditions: tuple[Condition, ...], frame: str) -> str:
    parts = [f"{frame}.{c.column} .{_SIGNS[c.operator]} {quoted(c.value)}" for c in conditions]
    return " .& ".join(f"({part})" for part in parts) if len(parts) > 1 else "".join(parts)


def _by_row(condition: Condition) -> str:
    return f":{condition.column} => ByRow({_SIGNS[condition.operator]}({quoted(condition.value)}))"
