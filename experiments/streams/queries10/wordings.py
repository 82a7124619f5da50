"""A question in English, in one of four ways."""

from experiments.streams.queries10.query import Condition, Query

WORDINGS = 4

TEMPLATES: dict[str, tuple[str, str, str, str]] = {
    "filter": (
        "List the {column} of {rows} {where}.",
        "Which {column} do the {rows} {where} have?",
        "Show the {column} of all {rows} {where}.",
        "For {rows} {where}, give the {column}.",
    ),
    "count": (
        "How many {rows} are there {where}?",
        "Count the {rows} {where}.",
        "What is the number of {rows} {where}?",
        "Tell me how many {rows} there are {where}.",
    ),
    "aggregate": (
        "What is the {number} of {rows} {where}?",
        "Compute the {number} of the {rows} {where}.",
        "Find the {number} of all {rows} {where}.",
        "For {rows} {where}, what is the {number}?",
    ),
    "distinct": (
        "List the different {column} values of {rows} {where}.",
        "Which distinct {column} values do the {rows} {where} have?",
        "Show each {column} once, for {rows} {where}.",
        "What are the unique {column} values of {rows} {where}?",
    ),
    "order": (
        "List the {column} of {rows} {where}, {first} {by} first.",
        "Show the {column} of the {rows} {where}, by {by} from {down}.",
        "Give the {column} of {rows} {where}, sorted from {first} to {last} {by}.",
        "Sort {rows} {where} by {by}, {first} first, and show the {column}.",
    ),
    "top": (
        "What is the {column} of the {limit} {rows} with the {first} {by}?",
        "List the {column} of the {end} {limit} {rows} by {by}.",
        "Show the {column} of the {limit} {rows} that have the {first} {by}.",
        "Which {limit} {rows} have the {first} {by}? Give the {column}.",
    ),
    "group_count": (
        "How many {rows} {where} are there for each {by}?",
        "Count the {rows} {where} per {by}.",
        "Show the number of {rows} {where} by {by}.",
        "For every {by}, count the {rows} {where}.",
    ),
    "group_aggregate": (
        "What is the {number} of {rows} for each {by}?",
        "Compute the {number} of the {rows} per {by}.",
        "Show the {number} of {rows} by {by}.",
        "For every {by}, find the {number} of the {rows}.",
    ),
    "having": (
        "Which {by} values have more than {limit} {rows}?",
        "List each {by} with over {limit} {rows}.",
        "Show the {by} values that more than {limit} {rows} have.",
        "Find every {by} that occurs in more than {limit} {rows}.",
    ),
    "most": (
        "Which {by} has the most {rows} {where}?",
        "Find the {by} with the largest number of {rows} {where}.",
        "What is the most common {by} of {rows} {where}?",
        "Name the {by} that occurs most often in {rows} {where}.",
    ),
    "join_aggregate": (
        "What is the {number} of {rows} for each {by} of the {other}?",
        "Compute the {number} of the {rows} per {other} {by}.",
        "Show the {number} of {rows} by the {by} of their {other}.",
        "For every {other} {by}, find the {number} of the {rows}.",
    ),
}
"""The four wordings of each kind."""

for _kind, _like in (("filter_and", "filter"), ("join", "filter"), ("join_count", "count")):
    TEMPLATES[_kind] = TEMPLATES[_like]

_START = ("where", "with", "whose", "that have")
_JOINED = ("where the {other} has", "with {a} {other} with", "whose {other} has", "of {a} {other} that has")
_COMPARED = {
    "=": ("{column} is {value}", "{column} {value}", "{column} is {value}", "{column} {value}"),
    ">": (
        "{column} is over {value}",
        "{column} above {value}",
        "{column} is more than {value}",
        "{column} greater than {value}",
    ),
    "<": (
        "{column} is under {value}",
        "{column} below {value}",
        "{column} is less than {value}",
        "{column} smaller than {value}",
    ),
}
_AGGREGATES = {
    "avg": ("average {}", "mean {}", "average {}", "mean {}"),
    "sum": ("sum of the {}", "{} sum", "summed {}", "sum of the {}"),
    "min": ("lowest {}", "minimum {}", "smallest {}", "least {}"),
    "max": ("highest {}", "maximum {}", "largest {}", "greatest {}"),
}
_FIRST = {True: ("highest", "largest", "largest", "highest"), False: ("lowest", "smallest", "smallest", "lowest")}


def wording(query: Query, way: int) -> str:
    """The question in English.

    Args:
        query: what is asked.
        way: 0 to 3.
    """
    text = TEMPLATES[query.kind][way].format(
        rows=query.table,
        other=query.other.singular if query.joins else "",
        column=query.column,
        by=query.by,
        limit=query.limit,
        where=_where(query, way),
        number=_AGGREGATES[query.aggregate][way].format(query.column) if query.aggregate else "",
        first=_FIRST[query.descending][way],
        last=_FIRST[not query.descending][way],
        down="high to low" if query.descending else "low to high",
        end="top" if query.descending else "bottom",
    )
    return text.replace("  ", " ").replace(" .", ".").replace(" ?", "?")


def _where(query: Query, way: int) -> str:
    if not query.where:
        return ""
    if query.joins:
        other = query.other.singular
        start, style = _JOINED[way].format(other=other, a="an" if other[0] in "aeiou" else "a"), 1
    else:
        start, style = _START[way], way
    return f"{start} {' and '.join(_compared(condition, style) for condition in query.where)}"


def _compared(condition: Condition, style: int) -> str:
    return _COMPARED[condition.operator][style].format(column=condition.column, value=condition.value)
