"""LINQ in C#, by its methods: a table is a collection of objects, a column a property with a capital letter."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query

_FUNCTIONS = {"avg": "Average", "sum": "Sum", "min": "Min", "max": "Max"}


def linq(query: Query) -> str:
    """The answer as one expression."""
    name, column, by = query.table, f"x.{query.column.capitalize()}", f"x.{query.by.capitalize()}"
    test = _test(query)
    rows = f"{name}.Where({test})" if query.where else name
    function = _FUNCTIONS.get(query.aggregate, "")
    match query.kind:
        case "filter" | "filter_and":
            return f"{rows}.Select(x => {column})"
        case "count":
            return f"{name}.Count({test})"
        case "aggregate":
            return f"{rows}.{function}(x => {column})"
        case "distinct":
            return f"{rows}.Select(x => {column}).Distinct()"
        case "order":
            return f"{rows}.{_order(query)}(x => {by}).Select(x => {column})"
        case "top":
            return f"{rows}.{_order(query)}(x => {by}).Take({query.limit}).Select(x => {column})"
        case "group_count":
            return f"{rows}.GroupBy(x => {by}).Select(g => new {{ g.Key, Count = g.Count() }})"
        case "group_aggregate":
            return f"{rows}.GroupBy(x => {by}).Select(g => new {{ g.Key, Value = g.{function}(x => {column}) }})"
        case "having":
            return f"{rows}.GroupBy(x => {by}).Where(g => g.Count() > {query.limit}).Select(g => g.Key)"
        case "most":
            return f"{rows}.GroupBy(x => {by}).OrderByDescending(g => g.Count()).First().Key"
    key, column, by = query.main.key.capitalize(), f"x.a.{query.column.capitalize()}", f"x.b.{query.by.capitalize()}"
    joined = f"{name}.Join({query.other.name}, a => a.{key}, b => b.Id, (a, b) => new {{ a, b }})"
    test = _test(query, "x.b")
    match query.kind:
        case "join":
            return f"{joined}.Where({test}).Select(x => {column})"
        case "join_count":
            return f"{joined}.Count({test})"
        case _:
            return f"{joined}.GroupBy(x => {by}).Select(g => new {{ g.Key, Value = g.{function}(x => {column}) }})"


def _order(query: Query) -> str:
    return "OrderByDescending" if query.descending else "OrderBy"


def _test(query: Query, row: str = "x") -> str:
    signs = {"=": "==", ">": ">", "<": "<"}
    parts = [f"{row}.{c.column.capitalize()} {signs[c.operator]} {quoted(c.value)}" for c in query.where]
    return f"x => {' && '.join(parts)}"
