"""pandas: every table is a DataFrame of its own name."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Condition, Query

_FUNCTIONS = {"avg": "mean()", "sum": "sum()", "min": "min()", "max": "max()"}


def pandas_frames(query: Query) -> str:
    """The answer as one expression."""
    name, column, by = query.table, f'"{query.column}"', f'"{query.by}"'
    mask = _mask(query.where, name)
    rows = f"{name}[{mask}]" if mask else name
    function = _FUNCTIONS.get(query.aggregate, "")
    match query.kind:
        case "filter" | "filter_and":
            return f"{name}.loc[{mask}, {column}]"
        case "count":
            return f"len({rows})"
        case "aggregate":
            return f"{name}.loc[{mask}, {column}].{function}"
        case "distinct":
            return f"{name}.loc[{mask}, {column}].unique()"
        case "order":
            down = ", ascending=False" if query.descending else ""
            return f"{rows}.sort_values({by}{down})[{column}]"
        case "top":
            return f"{name}.{'nlargest' if query.descending else 'nsmallest'}({query.limit}, {by})[{column}]"
        case "group_count":
            return f"{rows}.groupby({by}).size()"
        case "group_aggregate":
            return f"{name}.groupby({by})[{column}].{function}"
        case "having":
            return f"{name}.groupby({by}).size().loc[lambda n: n > {query.limit}].index"
        case "most":
            return f"{f'{name}.loc[{mask}, {by}]' if mask else f'{name}[{by}]'}.value_counts().idxmax()"
    joined = f'{name}.merge({query.other.name}, left_on="{query.main.key}", right_on="id")'
    chosen = f"lambda x: {_mask(query.where, 'x')}"
    match query.kind:
        case "join":
            return f"{joined}.loc[{chosen}, {column}]"
        case "join_count":
            return f"len({joined}.loc[{chosen}])"
        case _:
            return f"{joined}.groupby({by})[{column}].{function}"


def _mask(conditions: tuple[Condition, ...], frame: str) -> str:
    signs = {"=": "==", ">": ">", "<": "<"}
    parts = [f'{frame}["{c.column}"] {signs[c.operator]} {quoted(c.value)}' for c in conditions]
    return " & ".join(f"({part})" for part in parts) if len(parts) > 1 else "".join(parts)
