"""MongoDB, as its shell takes it."""

from experiments.streams.queries10.languages.values import quoted
from experiments.streams.queries10.query import Query

_OPERATORS = {">": "$gt", "<": "$lt"}


def mongodb(query: Query) -> str:
    """The answer as one call on a collection."""
    name, column, by = f"db.{query.table}", query.column, query.by
    conditions, shown = _conditions(query), f"{{_id: 0, {column}: 1}}"
    match, sign = [f"{{$match: {conditions}}}"] if query.where else [], -1 if query.descending else 1
    number = f'value: {{${query.aggregate}: "${column}"}}'
    count = f'{{$group: {{_id: "${by}", n: {{$sum: 1}}}}}}'
    match query.kind:
        case "filter" | "filter_and":
            return f"{name}.find({conditions}, {shown})"
        case "count":
            return f"{name}.countDocuments({conditions})"
        case "distinct":
            return f'{name}.distinct("{column}", {conditions})'
        case "order":
            return f"{name}.find({conditions}, {shown}).sort({{{by}: {sign}}})"
        case "top":
            return f"{name}.find({{}}, {shown}).sort({{{by}: {sign}}}).limit({query.limit})"
        case "aggregate":
            stages = [*match, f"{{$group: {{_id: null, {number}}}}}"]
        case "group_count":
            stages = [*match, count]
        case "group_aggregate":
            stages = [f'{{$group: {{_id: "${by}", {number}}}}}']
        case "having":
            stages = [count, f"{{$match: {{n: {{$gt: {query.limit}}}}}}}"]
        case "most":
            stages = [*match, count, "{$sort: {n: -1}}", "{$limit: 1}"]
        case _:
            stages = [_lookup(query), *_joined(query, number)]
    return f"{name}.aggregate([{', '.join(stages)}])"


def _lookup(query: Query) -> str:
    other, key = query.other.name, query.main.key
    return f'{{$lookup: {{from: "{other}", localField: "{key}", foreignField: "id", as: "b"}}}}'


def _joined(query: Query, number: str) -> list[str]:
    match = f"{{$match: {_conditions(query, 'b')}}}"
    match query.kind:
        case "join":
            return [match, f"{{$project: {{_id: 0, {query.column}: 1}}}}"]
        case "join_count":
            return [match, '{$count: "n"}']
        case _:
            return ['{$unwind: "$b"}', f'{{$group: {{_id: "$b.{query.by}", {number}}}}}']


def _conditions(query: Query, inside: str = "") -> str:
    parts = []
    for condition in query.where:
        name = f'"{inside}.{condition.column}"' if inside else condition.column
        value = quoted(condition.value)
        parts.append(
            f"{name}: {value if condition.operator == '=' else f'{{{_OPERATORS[condition.operator]}: {value}}}'}"
        )
    return f"{{{', '.join(parts)}}}"
