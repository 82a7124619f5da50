"""Answers of queries10 in the languages that CI cannot run, by whatever of their own tools is here; else skipped.

Run where they are: jq; Rscript with dplyr; mcs and mono for C#; the Python packages kuzu (Cypher), mongomock and
tree_sitter_julia; node with @kusto/language-service-next.
"""

import importlib
import json
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from experiments.streams.queries10.execution import same
from experiments.streams.queries10.languages import LANGUAGES
from experiments.streams.queries10.query import KINDS, Query
from experiments.streams.queries10.questions import questions
from experiments.streams.queries10.reference import answer, is_plain
from experiments.streams.queries10.rows import rows_of
from experiments.streams.queries10.tables import TABLES, Table

pytestmark = pytest.mark.slow

ROWS = {name: rows_of(name, 0) for name in TABLES}


def asked(count: int) -> list[Query]:
    """Questions of every kind that the rows at hand answer plainly, on all tables."""
    every = [*questions("train")[:count], *questions("unseen_tables")[: count // 3]]
    found = [query for query in every if is_plain(query, ROWS) and answer(query, ROWS)]
    assert {query.kind for query in found} == set(KINDS)
    assert {query.table for query in found} == set(TABLES)
    return found


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}")
    return path


def check(query: Query, found: list[Any]) -> None:
    rows = [
        tuple(row.values()) if isinstance(row, dict) else tuple(row) if isinstance(row, list) else (row,)
        for row in found
    ]
    assert same(rows, answer(query, ROWS), query.ordered), (query, rows, answer(query, ROWS))


def output(command: list[str], text: str | None = None, **options: Any) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


def test_jq(tmp_path: Path) -> None:
    jq = tool("jq")
    (tmp_path / "tables.json").write_text(json.dumps(ROWS))
    for query in asked(240):
        lines = output([jq, "-c", LANGUAGES["jq"](query), str(tmp_path / "tables.json")]).splitlines()
        found = [json.loads(line) for line in lines]
        check(query, found[0] if query.kind == "distinct" else found)


def test_dplyr(tmp_path: Path) -> None:
    rscript = tool("Rscript")
    lines = ["suppressMessages(library(dplyr))"]
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.csv").write_text(
            "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"
        )
        lines.append(f'{name} <- read.csv("{name}.csv", stringsAsFactors = FALSE)')
    lines.append('show <- function(x) { x <- as.data.frame(x); cat(nrow(x), "\\n");')
    lines.append(
        "for (i in seq_len(nrow(x))) "
        'cat(paste(sapply(x[i, ], function(v) format(v, digits = 17)), collapse = "\\t"), "\\n") }'
    )
    queries = asked(600)
    lines += [f"show({LANGUAGES['dplyr'](query)})" for query in queries]
    (tmp_path / "all.R").write_text("\n".join(lines))
    told = iter(output([rscript, "all.R"], cwd=tmp_path).splitlines())
    for query in queries:
        rows = [next(told).strip().split("\t") for _ in range(int(next(told)))]
        check(query, [[number(value) for value in row] for row in rows])


def number(text: str) -> Any:
    text = text.strip()
    return float(text) if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", text) else text


def test_linq(tmp_path: Path) -> None:
    mcs, mono = tool("mcs"), tool("mono")
    classes, fields = [], []

    def typed(table: Table, column: str) -> str:
        return "string" if isinstance(ROWS[table.name][0][column], str) else "int"

    for table in TABLES.values():
        names = [(typed(table, column), column.capitalize()) for column in table.columns]
        members = " ".join(f"public {kind} {name};" for kind, name in names)
        classes.append(f"class {table.singular.capitalize()} {{ {members} }}")
        kind = table.singular.capitalize()
        values = [", ".join(f"{c.capitalize()} = {json.dumps(v)}" for c, v in row.items()) for row in ROWS[table.name]]
        made = [f"new {kind} {{ {value} }}" for value in values]
        fields.append(f"static List<{kind}> {table.name} = new List<{kind}> {{ {', '.join(made)} }};")
    queries = asked(300)
    calls = "\n".join(f"Show({LANGUAGES['LINQ'](query)});" for query in queries)
    program = f"""using System; using System.Collections; using System.Collections.Generic; using System.Linq;
{chr(10).join(classes)}
class All {{
{chr(10).join(fields)}
static string One(object o) {{ return Convert.ToString(o, System.Globalization.CultureInfo.InvariantCulture); }}
static string Line(object o) {{
  if (o is string || o is int || o is double) return One(o is double ? ((double)o).ToString("R") : o);
  return string.Join("\\t", o.GetType().GetProperties().Select(p => Line(p.GetValue(o))));
}}
static void Show(object o) {{
  var all = o is IEnumerable && !(o is string) ? ((IEnumerable)o).Cast<object>().ToList() : new List<object> {{ o }};
  Console.WriteLine(all.Count);
  foreach (var x in all) Console.WriteLine(Line(x));
}}
static void Main() {{
{calls}
}} }}"""
    (tmp_path / "All.cs").write_text(program)
    output([mcs, "-out:all.exe", "All.cs"], cwd=tmp_path)
    told = iter(output([mono, "all.exe"], cwd=tmp_path).splitlines())
    for query in queries:
        rows = [next(told).split("\t") for _ in range(int(next(told)))]
        check(query, [[number(value) for value in row] for row in rows])


def test_mongodb() -> None:
    mongomock = pytest.importorskip("mongomock")
    database = mongomock.MongoClient().all
    for name, rows in ROWS.items():
        database[name].insert_many([dict(row) for row in rows])
    for query in asked(600):
        text = LANGUAGES["MongoDB"](query)
        name, calls = re.fullmatch(r"db\.(\w+)\.(.*)", text).groups()
        found: Any = database[name]
        for method, arguments in re.findall(r"(\w+)\((.*?)\)(?=\.|$)", calls):
            values = json.loads("[" + re.sub(r"([{,]\s*)([$\w]+):", r'\1"\2":', arguments) + "]")
            if method == "sort":
                values = [list(values[0].items())]
            found = getattr(found, {"countDocuments": "count_documents"}.get(method, method))(*values)
        if query.kind in ("aggregate", "join_count"):
            found = [row[column] for row in found for column in row if column != "_id"]
        elif query.kind in ("having", "most"):
            found = [row["_id"] for row in found]
        elif query.by and not query.ordered:
            found = [[row.pop("_id"), *row.values()] for row in found]
        check(query, [found] if isinstance(found, int) else list(found))


def test_cypher(tmp_path: Path) -> None:
    kuzu = pytest.importorskip("kuzu")
    graph = kuzu.Connection(kuzu.Database(str(tmp_path / "graph")))
    for name, rows in ROWS.items():
        label = TABLES[name].singular.capitalize()
        types = ", ".join(f"{c} {'STRING' if isinstance(v, str) else 'INT64'}" for c, v in rows[0].items())
        graph.execute(f"CREATE NODE TABLE {label}({types}, PRIMARY KEY(id))")
        for row in rows:
            graph.execute(f"CREATE (:{label} {{{', '.join(f'{c}: {v!r}' for c, v in row.items())}}})")
    for table in TABLES.values():
        if table.refers:
            a, b, key = table.singular.capitalize(), TABLES[table.refers].singular.capitalize(), table.key
            graph.execute(f"CREATE REL TABLE {key.upper()}_OF(FROM {a} TO {b})")
            graph.execute(f"MATCH (a:{a}), (b:{b}) WHERE a.{key} = b.id CREATE (a)-[:{key.upper()}_OF]->(b)")
    for query in asked(300):
        # kuzu takes no relationship with the name of a table, which other graph databases do
        text = re.sub(r"\[:(\w+)\]", r"[:\1_OF]", LANGUAGES["Cypher"](query))
        rows = graph.execute(text).get_all()
        check(query, [[float(v) if isinstance(v, Decimal) else v for v in row] for row in rows])


def test_kql_has_no_errors_by_its_own_language_service(tmp_path: Path) -> None:
    node = tool("node")
    known = subprocess.run([node, "-e", "require('@kusto/language-service-next/bridge.min')"], capture_output=True)
    if known.returncode:
        pytest.skip("no @kusto/language-service-next")
    symbols = []
    for name, rows in ROWS.items():
        columns = ", ".join(f"{c}: {'string' if isinstance(v, str) else 'long'}" for c, v in rows[0].items())
        symbols.append(f"new K.Symbols.TableSymbol.$ctor7({json.dumps(name)}, {json.dumps(f'({columns})')}, null)")
    queries = [LANGUAGES["KQL"](query) for query in asked(240)]
    program = f"""require('@kusto/language-service-next/bridge.min');
require('@kusto/language-service-next/Kusto.Language.Bridge.min');
const K = Kusto.Language;
const base = new K.Symbols.DatabaseSymbol.$ctor3("all", null, [{", ".join(symbols)}], false);
const all = K.GlobalState.Default.WithDatabase(base);
const bad = [];
for (const text of [...{json.dumps(queries)}, "sales | where nothing > 3 | count", "sales | | count"]) {{
  const found = K.KustoCode.ParseAndAnalyze(text, all).GetDiagnostics();
  for (let i = 0; i < found.Count; i++) bad.push(text + ": " + found.getItem(i).Message);
}}
console.log(JSON.stringify(bad));"""
    (tmp_path / "all.js").write_text(program)
    bad = json.loads(output([node, str(tmp_path / "all.js")]))
    assert {text.split(":")[0] for text in bad} == {"sales | where nothing > 3 | count", "sales | | count"}, bad


def test_julia_parses() -> None:
    julia = importlib.import_module("tree_sitter_julia") if pytest.importorskip("tree_sitter_julia") else None
    tree_sitter = pytest.importorskip("tree_sitter")
    parser = tree_sitter.Parser(tree_sitter.Language(julia.language()))
    assert parser.parse(b"first(sort(x, :a").root_node.has_error
    for query in asked(600):
        text = LANGUAGES["Julia DataFrames"](query)
        assert not parser.parse(text.encode()).root_node.has_error, text
