"""queries10: what is asked, which questions are apart, and that the answers are right where they can be run."""

import hashlib
import json
import pickle

import pytest

from experiments.streams.queries10.execution import executed, run_pandas, run_polars, run_sql, runners, same
from experiments.streams.queries10.languages import LANGUAGES
from experiments.streams.queries10.query import KINDS, Condition, Query
from experiments.streams.queries10.questions import questions
from experiments.streams.queries10.reference import answer
from experiments.streams.queries10.rows import fitting_rows
from experiments.streams.queries10.stream import example, queries10, way_of
from experiments.streams.queries10.tables import SEEN, TABLES, UNSEEN
from experiments.streams.queries10.wordings import WORDINGS
from share_jax.errors import InputError

PARTS = ("train", "test", "unseen_tables")
STREAM = "57159f079c907bbf33cdd3606296dd3c17cac9986970cfbb398dd8f5b245940c"
"""sha256 of the default stream: it changes only with what is asked or with how it is written."""


def test_the_stream_is_the_same_everywhere() -> None:
    texts = [
        [task.name, name, example.prompt, example.completion]
        for task in queries10()
        for name, examples in (("train", task.train), *task.test.items())
        for example in examples
    ]
    assert hashlib.sha256(json.dumps(texts).encode()).hexdigest() == STREAM


def test_questions_are_apart_whatever_their_wording() -> None:
    parts = {part: questions(part) for part in PARTS}
    assert all(len(set(part)) == len(part) for part in parts.values())
    assert not set(parts["train"]) & set(parts["test"])
    assert len(parts["train"]) > 10_000
    names = {part: {table.name for query in queries for table in query.tables} for part, queries in parts.items()}
    assert names["train"] == names["test"] == {table.name for table in SEEN}
    assert names["unseen_tables"] == {table.name for table in UNSEEN}


@pytest.mark.parametrize("part", PARTS)
def test_the_first_few_questions_have_every_kind_and_table(part: str) -> None:
    first = questions(part)[:140]
    assert {query.kind for query in first} == set(KINDS)
    tables = {table.name for table in (UNSEEN if part == "unseen_tables" else SEEN)}
    assert {query.table for query in first} == tables
    counts = [sum(query.kind == kind for query in first) for kind in KINDS]
    assert max(counts) - min(counts) <= 1


def test_every_language_is_asked_the_same() -> None:
    tasks = queries10(train_per_task=30, test_per_task=20, unseen_per_task=10)
    assert [task.name for task in tasks] == list(LANGUAGES)
    for task in tasks:
        assert (len(task.train), len(task.test["test"]), len(task.test["unseen_tables"])) == (30, 20, 10)
        asked = [found.prompt.removesuffix(f"{task.name}:\n") for found in task.train]
        assert asked == [found.prompt.removesuffix("SQL:\n") for found in tasks[0].train]
    assert len({found.completion for task in tasks for found in task.train}) == 300


def test_more_questions_have_the_fewer_in_them() -> None:
    few, many = (queries10(train_per_task=count, languages=("SQL",))[0].train for count in (20, 90))
    assert many[:20] == few
    assert queries10(seed=1, train_per_task=20, languages=("SQL",))[0].train != few


def test_the_four_wordings_differ_and_all_are_used() -> None:
    for query in questions("test")[:60]:
        texts = {example(query, "SQL", way).prompt for way in range(WORDINGS)}
        assert len(texts) == WORDINGS
        assert not any(sign in text for text in texts for sign in ("  ", " .", " ?", "{"))
    assert {way_of(query) for query in questions("train")[:50]} == set(range(WORDINGS))


def test_what_is_asked_can_be_told_apart() -> None:
    """No two questions have one prompt, so one answer is right."""
    asked = [(query, way) for part in PARTS for query in questions(part)[:2000] for way in range(WORDINGS)]
    assert len({example(query, "SQL", way).prompt for query, way in asked}) == len(asked)


def test_answers_are_one_line_and_differ_as_the_questions_do() -> None:
    asked = questions("train")[:3000]
    for language, write in LANGUAGES.items():
        texts = [write(query) for query in asked]
        assert len(set(texts)) == len(texts), language
        assert all(text.isprintable() and text == text.strip() for text in texts)


def test_tables_can_be_named_and_joined_in_every_language() -> None:
    assert len(SEEN) >= 10
    for table in TABLES.values():
        assert table.name == f"{table.singular}s"
        assert len(set(table.columns)) == len(table.columns)
        if table.refers:
            assert set(table.columns) & set(TABLES[table.refers].columns) <= {"id"}


@pytest.mark.parametrize("language", ["SQL", "pandas", "Polars"])
def test_answers_give_the_right_rows(language: str) -> None:
    if language != "SQL":
        pytest.importorskip(language.lower())
    for part, count in (("train", 280), ("test", 70), ("unseen_tables", 140)):
        for query in questions(part)[:count]:
            assert executed(language, LANGUAGES[language](query), query), query


FIRST = Query("order", "products", "name", (Condition("category", "=", "food"),), "price", descending=True)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("select p.name from products as p where p.category in ('food') order by -price", True),
        ("SELECT name FROM products WHERE category = 'food'", False),
        ("SELECT name FROM products WHERE category = 'food' ORDER BY price", False),
        ("SELECT name, price FROM products WHERE category = 'food' ORDER BY price DESC", False),
        ("SELECT name FROM products WHERE category = 'tools' ORDER BY price DESC", False),
        ("SELECT name FROM nowhere", False),
        ("SELECT", False),
        ("", False),
        ("\0", False),
        ("DROP TABLE products", False),
        ("ATTACH 'own.db' AS own", False),
        ("SELECT 1; SELECT 2", False),
        ("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n", False),
        ("SELECT hex(zeroblob(100000000))", False),
    ],
)
def test_sql_is_judged_by_its_rows(written: str, right: bool) -> None:
    assert executed("SQL", written, FIRST) is right


def test_rows_that_come_in_any_order_are_compared_as_such() -> None:
    query = Query("group_count", "products", by="brand")
    tables = fitting_rows(query, 0)
    found = run_sql("SELECT brand, COUNT(*) FROM products GROUP BY brand ORDER BY COUNT(*)", tables)
    assert found is not None
    assert same(found, answer(query, tables), ordered=False)
    assert not same(found[::-1], found, ordered=True)
    assert not same([(b"a",)], [("a",)], ordered=False)
    assert not same([], [("a",)], ordered=False)


@pytest.mark.parametrize(
    "written",
    [
        '__import__("os").getcwd()',
        "products.__class__",
        'products.to_csv("own.csv")',
        'products.agg("to_csv", 0, "own.csv")',
        'products.query("@products")',
        "(lambda x: x.__globals__)(len)",
        'products.merge(products, "cross")',
        "[x for x in products]",
        "products.loc[",
        "nothing",
        "len",
        "1 if products else 2",
        '"x" * 1000000000',
    ],
)
def test_only_plain_queries_are_evaluated(written: str) -> None:
    query = Query("filter", "products", "name", (Condition("price", ">", 20),))
    tables = fitting_rows(query, 0)
    for language, run in (("pandas", run_pandas), ("Polars", run_polars)):
        if language in runners():
            assert run(written, tables) is None


def test_checks_come_with_the_languages_that_can_be_run_and_travel_to_other_processes() -> None:
    sql, kql = queries10(train_per_task=2, test_per_task=5, unseen_per_task=3, languages=("SQL", "KQL"))
    assert not kql.checks
    for name, examples in sql.test.items():
        for check, found in zip(pickle.loads(pickle.dumps(sql.checks[name])), examples, strict=True):
            assert check(found.completion)
            assert not check("SELECT 1")


@pytest.mark.parametrize("wrong", [{"train_per_task": 0}, {"test_per_task": -1}, {"languages": ("Perl",)}])
def test_what_cannot_be_asked_for_is_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        queries10(**wrong)
