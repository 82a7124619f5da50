"""The tables that are asked about: ten to learn with, and two that are met in a test alone.

A column that is named as another table, in the singular, refers to that table's `id`. Every table's name ends with an
"s" that its singular lacks, and two tables that are joined have no column in common but `id`: some languages would
rename such a column. No column is a keyword of one of the languages, as `title` is of KQL.

The words are common ones, which a tokenizer of English has as one piece each, behind a quote or a dot as behind a
space: what is learnt is how a language is written, and not how to spell Leeds.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: in the plural.
        label: the column that names a row; "id" where rows have no name.
        refers: the table to which each row refers; "" where there is none.
        words: columns of text, with the words that are in them.
        numbers: columns of whole numbers, with the first and last value that a question compares with, and the step.
    """

    name: str
    label: str
    refers: str
    words: dict[str, tuple[str, ...]]
    numbers: dict[str, tuple[int, int, int]]

    @property
    def singular(self) -> str:
        """The name of one row."""
        return self.name.removesuffix("s")

    @property
    def key(self) -> str:
        """The column that refers to another table."""
        return self.refers.removesuffix("s")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns in their order."""
        first = ("id", self.label, self.key)
        return (*dict.fromkeys(name for name in first if name), *self.words, *self.numbers)


def _table(
    name: str, label: str, refers: str, words: dict[str, str], numbers: dict[str, tuple[int, int, int]]
) -> Table:
    return Table(name, label, refers, {column: tuple(text.split()) for column, text in words.items()}, numbers)


SEEN = (
    _table(
        "clients",
        "name",
        "",
        {"city": "Paris London Rome Boston Chicago", "sector": "private business school bank"},
        {"age": (20, 70, 5), "points": (100, 900, 100)},
    ),
    _table(
        "orders",
        "id",
        "clients",
        {"channel": "web phone shop app mail", "state": "paid open late lost"},
        {"total": (50, 500, 50), "items": (5, 40, 5)},
    ),
    _table(
        "products",
        "name",
        "",
        {"brand": "Apple Google Amazon Microsoft Cisco", "category": "food art music health travel"},
        {"price": (10, 100, 10), "weight": (20, 200, 20)},
    ),
    _table(
        "banks",
        "code",
        "",
        {"building": "north south east west", "continent": "Asia Europe Africa America"},
        {"budget": (100, 900, 100), "members": (10, 80, 10)},
    ),
    _table(
        "workers",
        "name",
        "banks",
        {"role": "leader builder writer driver cook", "contract": "full part half open"},
        {"income": (20, 90, 10), "years": (5, 40, 5)},
    ),
    _table(
        "authors",
        "name",
        "",
        {"country": "France Spain Japan India Brazil", "language": "English French Spanish German"},
        {"age": (20, 70, 5), "links": (100, 900, 100)},
    ),
    _table(
        "books",
        "code",
        "authors",
        {"topic": "crime nature history law science", "cover": "hard soft paper audio"},
        {"pages": (100, 800, 100), "price": (10, 60, 5)},
    ),
    _table(
        "ports",
        "name",
        "",
        {"country": "China Canada Mexico Egypt Australia", "climate": "warm cold dry wet"},
        {"depth": (10, 60, 5), "area": (50, 400, 50)},
    ),
    _table(
        "boats",
        "code",
        "ports",
        {"color": "red blue green black white", "fuel": "gas oil electric solar"},
        {"speed": (10, 90, 10), "weight": (200, 900, 100)},
    ),
    _table(
        "houses",
        "address",
        "",
        {"state": "Texas Florida Virginia California Washington", "heating": "gas oil wood solar"},
        {"area": (50, 250, 25), "rent": (300, 900, 100)},
    ),
)
"""The tables of the training questions."""

UNSEEN = (
    _table(
        "patients",
        "name",
        "",
        {"blood": "A B AB O", "plan": "public company family private"},
        {"age": (20, 80, 5), "weight": (40, 110, 10)},
    ),
    _table(
        "cases",
        "id",
        "patients",
        {"organ": "heart eye skin foot", "reason": "pain check birth question"},
        {"cost": (50, 500, 50), "level": (10, 60, 5)},
    ),
)
"""The tables that no training question is about."""

TABLES = {table.name: table for table in (*SEEN, *UNSEEN)}
"""All tables by name."""
