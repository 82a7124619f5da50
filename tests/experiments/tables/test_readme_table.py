"""The README's table and figure from one result, which may be swapped for another."""

import json
from pathlib import Path

import pytest
from report_results import results as made_up

from experiments.report.results import load_results
from experiments.tables.markers import between, marked, replaced
from experiments.tables.readme_table import MAIN, MOST, blocks_of, main, together, write
from share_jax.errors import FormatError

ROOT = Path(__file__).parents[3]
TABLE, FIGURE = blocks_of(MAIN)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "assets").mkdir(parents=True)
    blocks = between(FIGURE, "stale"), between(TABLE, "stale")
    (tmp_path / "README.md").write_text(f"# a\n\n{blocks[0]}\n\nwords\n\n{blocks[1]}\n\nend\n")
    return tmp_path


def result(folder: Path, methods: tuple[str, ...], seeds: tuple[int, ...] = (0, 1)) -> Path:
    path = folder / f"{len(methods)}.json"
    path.write_text(json.dumps(made_up(methods=methods, seeds=seeds)))
    return path


def test_table_and_figure_are_those_of_the_result_that_was_given_last(checkout: Path, tmp_path: Path) -> None:
    write([result(tmp_path, ("shared_a", "frozen_head", "share", "joint", "majority_class"))], checkout)
    first = (checkout / "README.md").read_text()
    assert "| `shared_a` | one A for all tasks, one B per task | 9" in first
    assert "seeds 0, 1" in first
    assert "majority" not in first
    assert first.count("\n| `") <= MOST
    drawing = (checkout / "docs" / "assets" / "main_job.svg").read_text()
    assert drawing.startswith("<svg")
    assert 'viewBox="-12 -12 ' in drawing
    assert "stale" not in first
    write([], checkout)
    assert (checkout / "README.md").read_text() == first
    write([result(tmp_path, ("shared_a",), (3,))], checkout)
    second = (checkout / "README.md").read_text()
    assert "seed 3" in second
    assert "frozen_head" not in second
    assert second.startswith("# a\n\n<!-- main job figure -->\n\n<img ")
    assert second.endswith("end\n")
    assert (checkout / "docs" / "main_job.md").read_text() in second.replace("docs/assets", "assets").replace(
        "\n\n<!-- /main job figure -->\n\nwords\n\n<!-- main job -->", ""
    )


def test_another_job_has_files_of_its_own_and_the_blocks_that_the_readme_has(checkout: Path, tmp_path: Path) -> None:
    before = (checkout / "README.md").read_text()
    source = result(tmp_path, ("shared_a", "frozen"))
    assert {path.name for path in write([source], checkout, "queries10")} >= {"queries10.md", "queries10.json"}
    assert (checkout / "README.md").read_text() == before
    (checkout / "README.md").write_text(before + between("queries10", "stale") + "\n")
    write([], checkout, "queries10")
    after = (checkout / "README.md").read_text()
    assert "stale" not in after.removeprefix(before)
    assert after.startswith(before)


def test_runs_with_unlike_methods_become_one_and_unlike_runs_are_refused(tmp_path: Path) -> None:
    one, two = (load_results(result(tmp_path, names)) for names in (("shared_a", "joint"), ("frozen",)))
    two = {**two, "command": "other"}
    both = together([one, two])
    assert list(both["methods"]) == ["shared_a", "joint", "frozen"]
    assert both["command"] == f"{one['command']} && other"
    with pytest.raises(FormatError, match="preset of other: got"):
        together([one, {**two, "preset": "full"}])


def test_runs_with_unlike_seeds_become_one_and_a_missing_seed_is_named(tmp_path: Path) -> None:
    whole, first, second = (
        load_results(result(tmp_path, ("shared_a", "joint"), seeds)) for seeds in ((0, 1, 2), (0, 1), (2,))
    )
    both = together([second, {**first, "command": "run --preset a --seeds 0,1"}])
    assert {**both, "command": whole["command"]} == {**whole, "versions": second["versions"]}
    one, two = ({**each, "command": f"run --seeds {n} --preset a"} for n, each in (("2", second), ("0,1", first)))
    assert together([one, two])["command"] == "run --preset a --methods shared_a,joint --seeds 0,1,2"
    told = f"{two['command']} --data-folder FOLDER"
    joined = together([one, {**two, "command": told}])["command"]  # earlier results do not say so
    assert joined == "run --preset a --data-folder FOLDER --methods shared_a,joint --seeds 0,1,2"
    with pytest.raises(FormatError, match=r"weights of run .*: got Qwen3, expected the stream's own"):
        together([one, {**two, "command": f"{two['command']} --weights Qwen3"}])
    lacking = {**second, "methods": {"joint": second["methods"]["joint"]}}
    with pytest.raises(FormatError, match=r"seeds of shared_a: got \[0, 1\], expected \[0, 1, 2\]"):
        together([first, lacking])


def test_a_readme_without_the_markers_keeps_what_it_has(checkout: Path, tmp_path: Path) -> None:
    (checkout / "README.md").write_text("none")
    with pytest.raises(FormatError, match="main job"):
        write([result(tmp_path, ("shared_a",))], checkout)
    assert (checkout / "README.md").read_text() == "none"
    assert not (checkout / "docs" / "main_job.json").exists()


def test_a_file_that_is_no_result_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "no.json").write_text("{}")
    assert main([str(tmp_path / "no.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_readme_of_this_project_has_both_blocks() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in (TABLE, FIGURE):
        assert marked(readme, name)
        assert "body" in replaced(readme, name, "body", "README.md")
