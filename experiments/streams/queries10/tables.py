"""The tables that are asked about: ten to learn with, and two that are met in a test alone.

A column that is named as another table, in the singular, refers to that table's `id`. Every table's name ends with an
"s" that its singular lacks, and two tables that are joined have no column in common but `id`: some languages would
rename such a column. No column is a keyword of one of the languages, as `title` is of KQL.
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
        "customers",
        "name",
        "",
        {"city": "Paris London Rome Berlin Madrid Vienna", "segment": "private business school partner"},
        {"age": (20, 70, 5), "points": (100, 900, 100)},
    ),
    _table(
        "sales",
        "id",
        "customers",
        {"channel": "web phone shop app mail", "status": "paid open late lost"},
        {"total": (50, 500, 50), "items": (5, 40, 5)},
    ),
    _table(
        "products",
        "name",
        "",
        {"brand": "Apple Nike Sony Bosch Lego", "category": "toys tools sport music garden"},
        {"price": (10, 100, 10), "stock": (20, 200, 20)},
    ),
    _table(
        "departments",
        "code",
        "",
        {"building": "north south east west", "region": "Asia Europe Africa America"},
        {"budget": (100, 900, 100), "desks": (10, 80, 10)},
    ),
    _table(
        "employees",
        "name",
        "departments",
        {"role": "manager engineer designer driver cook", "contract": "full part temporary student"},
        {"salary": (20, 90, 10), "years": (5, 40, 5)},
    ),
    _table(
        "authors",
        "name",
        "",
        {"country": "France Spain Japan India Brazil", "language": "English French Spanish German"},
        {"awards": (5, 40, 5), "followers": (100, 900, 100)},
    ),
    _table(
        "books",
        "isbn",
        "authors",
        {"genre": "crime poetry history travel science", "cover": "hard soft audio digital"},
        {"pages": (100, 800, 100), "price": (10, 60, 5)},
    ),
    _table(
        "airlines",
        "name",
        "",
        {"hub": "Dubai Frankfurt Chicago Tokyo Sydney", "alliance": "star blue world sky"},
        {"fleet": (50, 400, 50), "rating": (10, 90, 10)},
    ),
    _table(
        "flights",
        "code",
        "airlines",
        {"origin": "Boston Dallas Denver Miami Seattle", "status": "early delayed landed cancelled"},
        {"distance": (200, 900, 100), "delay": (10, 90, 10)},
    ),
    _table(
        "houses",
        "street",
        "",
        {"town": "Oxford Cambridge Bath York Leeds", "heating": "gas oil wood solar"},
        {"area": (50, 250, 25), "rent": (300, 900, 100)},
    ),
)
"""The tables of the training questions."""

UNSEEN = (
    _table(
        "patients",
        "name",
        "",
        {"blood": "A B AB O", "insurer": "public company family state"},
        {"age": (20, 80, 5), "weight": (40, 110, 10)},
    ),
    _table(
        "visits",
        "id",
        "patients",
        {"clinic": "heart eye skin dental", "reason": "pain check cough vaccine"},
        {"cost": (50, 500, 50), "minutes": (10, 60, 5)},
    ),
)
"""The tables that no training question is about."""

TABLES = {table.name: table for table in (*SEEN, *UNSEEN)}
"""All tables by name."""
