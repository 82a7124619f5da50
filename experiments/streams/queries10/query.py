"""What a question asks, without words and without a language."""

from dataclasses import dataclass

from experiments.streams.queries10.tables import TABLES, Table

KINDS = {
    "filter": "a column of the rows that meet a condition",
    "filter_and": "a column of the rows that meet two conditions",
    "count": "how many rows meet a condition",
    "aggregate": "a number over the rows that meet a condition",
    "distinct": "the different words of a column, of the rows that meet a condition",
    "order": "a column of the rows that meet a condition, ordered by a number",
    "top": "a column of the few rows with the highest or lowest number",
    "group_count": "how many rows there are of each word, all or those that meet a condition",
    "group_aggregate": "a number over the rows of each word",
    "having": "the words that more than a few rows have",
    "most": "the word that most rows have, of all or of those that meet a condition",
    "join": "a column of the rows whose row of another table meets a condition",
    "join_count": "how many rows have a row of another table that meets a condition",
    "join_aggregate": "a number over the rows of each word of another table",
}
"""What there is to ask."""

MAIN_KINDS = ("filter", "count", "aggregate", "order", "top", "group_count", "group_aggregate", "join_count")
"""What the main job asks."""

AGGREGATES = ("avg", "sum", "min", "max")

Value = str | int


@dataclass(frozen=True)
class Condition:
    """A column compared with a value; `operator` is "=" for words, ">" or "<" for numbers."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Query:
    """A question.

    Attributes:
        kind: one of `KINDS`.
        table: its name.
        column: what is shown or aggregated; "" where rows are counted.
        where: conditions, all of which hold; in a join they are on the other table.
        by: the column of the order or of the groups; in a join of the other table.
        aggregate: one of `AGGREGATES`, or "".
        descending: the highest come first.
        limit: how many rows are shown, or more than how many a word must have.
    """

    kind: str
    table: str
    column: str = ""
    where: tuple[Condition, ...] = ()
    by: str = ""
    aggregate: str = ""
    descending: bool = False
    limit: int = 0

    @property
    def main(self) -> Table:
        """The table."""
        return TABLES[self.table]

    @property
    def other(self) -> Table:
        """The table that is joined."""
        return TABLES[self.main.refers]

    @property
    def joins(self) -> bool:
        """Whether another table is needed."""
        return self.kind.startswith("join")

    @property
    def tables(self) -> tuple[Table, ...]:
        """All that are needed."""
        return (self.main, self.other) if self.joins else (self.main,)

    @property
    def ordered(self) -> bool:
        """Whether the order of the answer's rows counts."""
        return self.kind in ("order", "top")
