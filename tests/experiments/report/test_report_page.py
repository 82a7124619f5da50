"""The report of several runs: what shares a table and what may not, and that every form of it holds every figure."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from report_results import LONG, METHODS, NAN, STREAM, made, results, save, told

from experiments.report.__main__ import main
from experiments.report.charts import Dot, best
from experiments.report.html import to_html
from experiments.report.page import write_page
from experiments.report.per_task import forgetting_per_task, task_seconds
from experiments.report.schema import validate
from experiments.report.sections import load_sections
from share_jax import metrics


def test_runs_that_differ_in_methods_and_seeds_share_a_table(tmp_path: Path) -> None:
    places = [
        made(tmp_path / "a", seeds=(0, 1), command="python -m experiments.run --preset quick --seeds 0,1"),
        made(tmp_path / "b", seeds=(2,), command="python -m experiments.run --preset quick --seeds 2"),
        made(tmp_path / "c", methods=("joint",), command="python -m experiments.run --preset quick --methods joint"),
    ]
    (section,) = load_sections(places)
    validate(section, "joined")
    assert section["seeds"] == [0, 1, 2]
    assert list(section["methods"]) == [*STREAM["methods"], "joint"]
    whole = told(results(**STREAM, seeds=(0, 1, 2)))
    for name in STREAM["methods"]:
        for key in ("mean", "std"):
            assert section["methods"][name][key] == whole["methods"][name][key]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "class-incremental"},
        {"protocol": "domain-incremental, unknown order"},
        {"tasks": LONG[:4]},
        {"tasks": LONG[2::-1]},
        {"command": "python -m experiments.run --preset quick --steps 99"},
        {"command": "python -m experiments.run --preset quick --weights Qwen3-0.6B"},
    ],
)
def test_another_protocol_stream_or_setting_is_a_section_of_its_own(tmp_path: Path, other: dict) -> None:
    places = [made(tmp_path / "a"), made(tmp_path / "b", **other)]
    sections = load_sections(places)
    assert len(sections) == 2
    page = write_page(sections, tmp_path / "report")
    text = page.with_name("report.md").read_text()
    assert len(re.findall(r"^### Results$", text, re.MULTILINE)) == 2
    assert "Figures of different sections are not to be compared" in text
    first, second = text.split("### Results")[1:]
    assert len(re.findall(r"^\| shared_a \| [0-9]", first.split("###")[0], re.MULTILINE)) == 1
    assert len(re.findall(r"^\| shared_a \| [0-9]", second.split("###")[0], re.MULTILINE)) == 1


def test_sections_of_one_name_say_in_what_they_differ(tmp_path: Path) -> None:
    commands = [f"python -m experiments.run --preset quick {flags}" for flags in ("--steps 8", "--steps 9 --bf16")]
    places = [made(tmp_path / str(i), command=command) for i, command in enumerate(commands)]
    text = write_page(load_sections(places), tmp_path / "out").with_name("report.md").read_text()
    names = re.findall("^## newsgroups10, quick, task-incremental, (.*)$", text, re.MULTILINE)
    assert names == ["steps 8", "steps 9, bf16"]


def test_the_same_run_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    place = made(tmp_path / "a")
    assert main([str(place), str(place), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "method shared_a, seed 0: got once in" in error
    assert not (tmp_path / "out").exists()


def test_a_method_of_other_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = results(**STREAM, seeds=(1,))
    content["methods"]["shared_a"]["params"]["shared"] = 7
    assert main([str(made(tmp_path / "a")), str(save(tmp_path / "b", content)), "-o", str(tmp_path / "out")]) == 2
    assert "shared: got [7], expected [55296]" in capsys.readouterr().err


def test_a_report_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [str(made(tmp_path / "a")), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out.split()
    assert [Path(path).name for path in printed] == ["report.html", "report.md", "report.csv", "report.json"]
    before = (tmp_path / "out" / "report.html").read_bytes()
    assert main(words) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == before


def test_a_place_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


class Outline(HTMLParser):
    """What a page consists of; refuses tags that are not closed in their order."""

    VOID = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [value for key, value in attrs if key in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    places = [
        made(root / "a", methods=METHODS, tasks=LONG, seeds=(0, 1)),
        made(root / "b", protocol="class-incremental"),
    ]
    return write_page(load_sections(places), root / "out")


def test_the_page_is_whole_names_nothing_outside_and_runs_nothing(report: Path) -> None:
    text = report.read_text()
    page = Outline(text)
    assert len(set(page.ids)) == len(page.ids)
    assert all(link.startswith("#") or link == "data:," for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()


def test_markdown_and_page_show_the_same_figures_each_with_words_for_it(report: Path) -> None:
    text, page = report.with_name("report.md").read_text(), report.read_text()
    images = re.findall(r'!\[([^\]]+)\]\((figures/[^) ]+) "([^"]+)"\)', text)
    assert len(images) == 5 + len(METHODS) + 5 + 4
    assert len(images) == page.count("<figure") == page.count("<figcaption>")
    for alt, source, _ in images:
        assert len(alt) > 30
        root = ElementTree.fromstring((report.parent / source).read_text())
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 30
        assert len(list(root.iter())) > 10


def test_the_page_has_the_tables_of_the_markdown(report: Path) -> None:
    text, page = report.with_name("report.md").read_text(), report.read_text()
    assert page.count("<table>") == len(re.findall(r"^\| :--", text, re.MULTILINE))
    for name in (*LONG, *METHODS):
        assert name in page
    assert page.count('class="scroll"') >= page.count("<table>")


def test_csv_and_json_hold_what_was_measured(report: Path) -> None:
    sections = json.loads(report.with_name("report.json").read_text())["sections"]
    for section in sections:
        validate(section, "section")
    with report.with_name("report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    run = sections[0]["methods"]["shared_a"]["runs"][1]
    own = [row for row in rows if row["method"] == "shared_a" and row["seed"] == "1" and "task-" in row["protocol"]]
    accuracy = {(row["after"], row["on"]): float(row["value"]) for row in own if row["quantity"] == "accuracy"}
    names = sections[0]["tasks"]
    expected = {
        (names[i], names[j]): value
        for i, row in enumerate(run["accuracy_matrix"])
        for j, value in enumerate(row)
        if value is not None
    }
    assert accuracy == expected
    assert {row["quantity"] for row in own} >= {"acc", "forgetting", "seconds", "seconds_per_task", "error_bound"}


def test_every_form_tells_of_the_router_and_of_acc_with_it_and_without(tmp_path: Path) -> None:
    content = told(results(methods=("shared_a", "separate_lora", "joint"), tasks=LONG[:3], seeds=(0, 1)))
    content["protocol"] = "class-incremental"
    for run in content["methods"]["shared_a"]["runs"]:
        found = {"router_accuracy": 0.5 + run["seed"] / 4, "acc_with_task_id": 0.875, "acc_without_router": 0.25}
        run["extra"] |= found
    content["methods"]["separate_lora"]["runs"][0]["extra"]["router_accuracy"] = 0.5
    page = write_page(load_sections([save(tmp_path / "a", content)]), tmp_path / "out")
    ours, separate = (
        f"{100 * content['methods'][name]['mean']['acc']:.2f} ± {100 * content['methods'][name]['std']['acc']:.2f}"
        for name in ("shared_a", "separate_lora")
    )
    heading = "method | router accuracy | ACC with router | ACC with task id | ACC without router"
    rows = [
        f"shared_a | 62.50 ± 17.68 | {ours} | 87.50 ± 0 | 25.00 ± 0",
        f"separate_lora | - | {separate} | - | -",
        "joint | - | - | - | -",
    ]
    text, html = page.with_name("report.md").read_text(), page.read_text()
    shown = re.sub(r"\s*</t[hd]>\s*<t[hd][^>]*>\s*", " | ", html)
    for row in (heading, *rows):
        assert f"| {row} |" in text
        assert f">{row}<" in shown
    with page.with_name("report.csv").open(newline="") as file:
        values = {(row["method"], row["quantity"], row["seed"]): row["value"] for row in csv.DictReader(file)}
    assert values["shared_a", "router_accuracy", "1"] == "0.75"
    assert values["shared_a", "acc_with_task_id", "0"] == "0.875"
    assert values["shared_a", "acc_without_router", "0"] == "0.25"
    assert ("joint", "router_accuracy", "0") not in values
    plain = write_page(load_sections([made(tmp_path / "b")]), tmp_path / "plain")
    assert "router" not in plain.with_name("report.md").read_text().lower()


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    section = load_sections([made(tmp_path / "a")])
    files = []
    for name in ("one", "two"):
        write_page(section, tmp_path / name)
        found = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        files.append({path.relative_to(tmp_path / name): path.read_bytes() for path in found})
    assert files[0] == files[1]


def test_names_that_are_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    tasks = ("<b>x</b>", "a|b", "`k` & *l*", "[m](n) &lt; o")
    page = write_page(load_sections([made(tmp_path / "a", tasks=tasks)]), tmp_path / "out").read_text()
    Outline(page)
    shown = re.sub(r"<[^>]*>", " ", page)
    for wanted in ("&lt;b&gt;x&lt;/b&gt;", "a|b", "`k` &amp; *l*", "[m](n) &amp;lt; o"):
        assert wanted in shown


def test_an_image_that_is_not_inline_is_an_error() -> None:
    with pytest.raises(KeyError):
        to_html("![x](elsewhere.png)", {})


def test_a_column_of_texts_stands_to_the_left_whatever_is_in_its_cells() -> None:
    page = to_html("| task | written | right |\n| :-- | :-- | --: |\n| a | `x` | yes |\n", {})
    assert re.findall(r"<t[hd]\b([^>]*)>", page) == [
        ' scope="col"', ' scope="col" class="text"', ' scope="col"', ' scope="row"', ' class="text"', ""
    ]  # fmt: skip


def test_forgetting_per_task_has_the_mean_that_the_measure_says() -> None:
    random = np.random.default_rng(0)
    for tasks in (2, 3, 7):
        matrix = np.where(np.tri(tasks, tasks, 1), random.uniform(size=(tasks, tasks)), NAN)
        own = forgetting_per_task(matrix)
        assert own.shape == (tasks - 1,)
        assert own.mean() == pytest.approx(metrics.forgetting(matrix), abs=1e-12)
    matrix[3, 2] = NAN
    assert np.isnan(forgetting_per_task(matrix)).tolist() == [False, False, True, False, False, False]


def test_seconds_per_task_are_those_of_all_runs_or_none(tmp_path: Path) -> None:
    content = told(results(**STREAM, seeds=(0, 1)))
    method = content["methods"]["shared_a"]
    np.testing.assert_array_equal(task_seconds(method), [[2, 3, 4], [3, 4, 5]])
    del method["runs"][1]["seconds"]["task 2"]
    assert task_seconds(method) is None


def test_the_front_holds_whom_no_other_beats() -> None:
    places = {"a": (10, 50), "b": (20, 40), "c": (20, 70), "d": (30, 70), "e": (40, 90)}
    dots = [Dot(name, x, y, None, 0, "") for name, (x, y) in places.items()]
    assert [dot.name for dot in best(dots)] == ["a", "c", "e"]
