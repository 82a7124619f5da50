"""Answers that are run: whether what was written gives the right rows, however it is written.

What a model wrote is not trusted. SQL runs in a database in memory that reads alone and stops after a bounded number of
steps. An expression of pandas or Polars is evaluated only if its syntax tree is made of the few nodes, names, methods
and argument names that queries need.
"""

import ast
import importlib
import math
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.util import find_spec
from typing import Any

from experiments.streams.queries10.query import Query
from experiments.streams.queries10.reference import Answer, Rows, answer
from experiments.streams.queries10.rows import fitting_rows
from experiments.streams.queries10.tables import TABLES

ROW_SETS = 2
"""Sets of rows on which an answer must be right."""

_STEPS = 1_000_000
_MOST_ROWS = 10_000
_LONGEST = 1_000
_MOST_JOINS = 2
"""Bounds of what is run: SQLite's steps, rows that are fetched, characters that are read, and joins, which multiply."""

Tables = Mapping[str, Rows]


def executed(language: str, written: str, query: Query) -> bool:
    """Whether an answer gives the right rows, in the right order where the question orders, on every set of rows.

    Args:
        language: one of `runners()`.
        written: the answer.
        query: what was asked.
    """
    run = runners()[language]
    for seed in range(ROW_SETS):
        tables = fitting_rows(query, seed)
        found = run(written, tables)
        if found is None or not same(found, answer(query, tables), query.ordered):
            return False
    return True


def runners() -> dict[str, Callable[[str, Tables], Answer | None]]:
    """What can be run here, by the name of the language; pandas and Polars where they are installed."""
    found: dict[str, Callable[[str, Tables], Answer | None]] = {"SQL": run_sql}
    if find_spec("pandas") is not None:
        found["pandas"] = run_pandas
    if find_spec("polars") is not None:
        found["Polars"] = run_polars
    return found


def same(found: Answer, expected: Answer, ordered: bool) -> bool:
    """Whether two answers have the same rows, numbers to 1e-9 of their size.

    >>> same([(2,), (1,)], [(1,), (2,)], ordered=False), same([(2,), (1,)], [(1,), (2,)], ordered=True)
    (True, False)
    """
    plain = all(isinstance(value, str | int | float | None) for row in found for value in row)
    if not plain or len(found) != len(expected) or len({len(row) for row in [*found, *expected]}) > 1:
        return False
    if not ordered:
        found, expected = sorted(found, key=_rank), sorted(expected, key=_rank)
    return all(_equal(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True))


def _rank(row: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """A key by which rows of missing values, numbers and words can be sorted."""
    return [(0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value) for value in row]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        return a == b
    return math.isclose(a, b, rel_tol=1e-9)


def run_sql(written: str, tables: Tables) -> Answer | None:
    """The rows that one SELECT gives in SQLite; None where it fails, writes, or takes too long."""
    with closing(sqlite3.connect(":memory:")) as database:
        for name, rows in tables.items():
            columns = ", ".join(rows[0])
            database.execute(f"CREATE TABLE {name} ({columns})")
            places = ", ".join("?" * len(rows[0]))
            database.executemany(f"INSERT INTO {name} VALUES ({places})", [tuple(row.values()) for row in rows])
        database.commit()
        database.set_authorizer(_reading)
        database.set_progress_handler(lambda: 1, _STEPS)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
        try:
            found = database.execute(written[:_LONGEST]).fetchmany(_MOST_ROWS)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError):
            return None
    return [tuple(row) for row in found]


def _reading(action: int, *_: Any) -> int:
    """Permits what a SELECT does and nothing else."""
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


_NODES = (
    ast.Expression, ast.Attribute, ast.Subscript, ast.Call, ast.Name, ast.Constant, ast.Compare, ast.BinOp,
    ast.BoolOp, ast.UnaryOp, ast.Slice, ast.List, ast.Tuple, ast.Lambda, ast.arguments, ast.arg, ast.keyword, ast.Load,
    ast.Gt, ast.Lt, ast.GtE, ast.LtE, ast.Eq, ast.NotEq, ast.BitAnd, ast.BitOr, ast.And, ast.Or, ast.Not, ast.Invert,
    ast.USub,
)  # fmt: skip
_PANDAS = """loc iloc columns index values shape size empty mean sum min max count nunique unique drop_duplicates
sort_values sort_index head tail nlargest nsmallest groupby merge value_counts idxmax idxmin tolist
reset_index set_index rename isin between len filter item"""
_POLARS = """col len count lit filter select sort head tail top_k bottom_k limit group_by agg join unique height shape
mean sum min max n_unique item to_list is_in is_between alias desc value_counts get_column first get"""
_KEYWORDS = """by on how left_on right_on ascending descending axis as_index sort keep columns subset name n
maintain_order"""


def run_pandas(written: str, tables: Tables) -> Answer | None:
    """The rows that an expression of pandas gives; None where it fails or is no plain query."""
    pandas = importlib.import_module("pandas")
    names = {name: pandas.DataFrame(list(rows)) for name, rows in tables.items()}
    found = _evaluated(written, names, _PANDAS)
    if isinstance(found, pandas.DataFrame):
        return [tuple(_plain(value) for value in row) for row in found.itertuples(index=False)]
    if isinstance(found, pandas.Series):
        keyed = found.index.name is not None or found.index.dtype.kind not in "iu"
        rows = found.items() if keyed else ((value,) for value in found)
        return [tuple(_plain(value) for value in row) for row in rows]
    return _flat(found)


def run_polars(written: str, tables: Tables) -> Answer | None:
    """The rows that an expression of Polars gives; None where it fails or is no plain query."""
    polars = importlib.import_module("polars")
    names = {name: polars.DataFrame([dict(row) for row in rows]) for name, rows in tables.items()}
    found = _evaluated(written, {**names, "pl": polars}, _POLARS)
    return found.rows() if isinstance(found, polars.DataFrame) else _flat(found)


def _evaluated(written: str, names: Mapping[str, Any], methods: str) -> Any:
    """The value of an expression, None where it is not allowed or fails."""
    try:
        tree = ast.parse(written[:_LONGEST].strip(), mode="eval")
        if not _allowed(tree, {*names, "len"}, methods):
            return None
        return eval(compile(tree, "<answer>", "eval"), {"__builtins__": {}, "len": len, **names})
    except Exception:  # whatever a wrong query raises in a library, it is a wrong answer
        return None


def _allowed(tree: ast.Expression, names: set[str], methods: str) -> bool:
    """Whether a tree has only what queries need; a lambda's own arguments are names, too."""
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    called = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    if sum(called.count(name) for name in ("merge", "join")) > _MOST_JOINS:
        return False
    attributes, keywords = {*methods.split(), *_columns(names)}, set(_KEYWORDS.split())
    for node in ast.walk(tree):
        bad = (
            not isinstance(node, _NODES)
            or (isinstance(node, ast.Attribute) and node.attr not in attributes)
            or (isinstance(node, ast.Name) and node.id not in names | own)
            or (isinstance(node, ast.keyword) and node.arg not in keywords)
            or (isinstance(node, ast.Constant) and not isinstance(node.value, str | int | float | None))
            or (isinstance(node, ast.Constant) and node.value == "cross")
        )
        if bad:
            return False
    return True


def _columns(names: set[str]) -> set[str]:
    """Columns may be read as attributes."""
    return {column for name in names & set(TABLES) for column in TABLES[name].columns}


def _flat(found: Any) -> Answer | None:
    """A number, a word or a list of them as rows of one value."""
    if found is None or callable(found):
        return None
    try:
        values = [found] if isinstance(found, str) else list(found)
    except TypeError:
        values = [found]
    plain = [_plain(value) for value in values]
    return [(value,) for value in plain] if all(isinstance(v, str | int | float) for v in plain) else None


def _plain(value: Any) -> Any:
    """A value of NumPy's as Python's own."""
    return value.item() if hasattr(value, "item") else value
