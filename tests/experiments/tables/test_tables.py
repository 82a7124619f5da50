"""The tables' command: entries, what is kept and resumed, what is refused, and one real run from end to end."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from processes import without_times
from tiny_run import tiny_vit

from experiments.config import digits5
from experiments.config.experiment import protocol_of
from experiments.config.methods import ID_ALONE, METHODS, PROMPTED
from experiments.config.run_config import command_line
from experiments.report.progress import NullProgress
from experiments.report.results import load_results
from experiments.tables import __main__ as tables
from experiments.tables.entries import TABLES, Entry, config_of
from experiments.tables.page import TITLES
from experiments.tables.runs import finished
from experiments.tables.write import block_of
from share_jax.runtime.preemption import Preemption

TINY = (
    Entry("digits5", "task", ("shared_a", "majority"), overrides={"steps": 4, "num_basis": 12, "phi": 4}),
    Entry("digits5", "class", ("majority",)),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model, a table of two entries, and no watcher that could end the test process."""
    monkeypatch.setattr(digits5, "digits_vit", tiny_vit)
    monkeypatch.setattr(tables, "TABLES", {"small": TINY})
    monkeypatch.setattr(tables, "Preemption", partial(Preemption, grace=1e6, patience=1e6))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs for all tests here."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def compile_cache_off() -> Iterator[None]:
    """Other tests compile without a folder, as they do without these."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    names += ("jax_persistent_cache_min_entry_size_bytes",)
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def go(folder: Path, cache: Path, *more: str) -> int:
    flags = ["--seeds", "0,1", "--preset", "quick", "--jobs", "1", "--quiet", "--workdir", str(folder)]
    flags += ["--compile-cache", str(cache), "--page", str(folder / "RESULTS.md"), "--headline", str(folder / "no")]
    return tables.main(["small", *flags, *more])


@pytest.mark.slow
def test_one_entry_from_end_to_end_and_again(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second seed, repeated to the end, and repeated once more, when nothing is run."""
    steps = 0

    def update(self: NullProgress, steps_done_delta: int = 1, loss: object = None) -> None:
        nonlocal steps
        steps += steps_done_delta
        if steps == 27:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(NullProgress, "update", update)
        assert go(tmp_path, cache, "--only", "task") == 0
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"terminated: shared_a saved at step 3 of task '{names(tmp_path)[1]}'; {tables.AGAIN}"
    assert not (tmp_path / "RESULTS.md").exists()
    assert go(tmp_path, cache, "--only", "task") == 0
    assert "digits5-task: goes on" in capsys.readouterr().err
    results = load_results(tmp_path / "digits5-task" / "results.json")
    assert list(results["methods"]) == ["shared_a", "majority"]
    assert results["seeds"] == [0, 1]
    page = (tmp_path / "RESULTS.md").read_text()
    assert "### digits5, task-incremental" in page
    assert "Not run yet with these settings: digits5-class." in page
    before = (tmp_path / "digits5-task" / "results.json").read_bytes()
    assert go(tmp_path, cache) == 0
    assert "digits5-task: finished before, kept" in capsys.readouterr().err
    assert (tmp_path / "digits5-task" / "results.json").read_bytes() == before
    assert "### digits5, class-incremental" in (tmp_path / "RESULTS.md").read_text()
    whole = tmp_path / "whole"
    assert go(whole, cache, "--only", "task") == 0
    again = load_results(whole / "digits5-task" / "results.json")
    assert without_times(again) == without_times(results)


def names(folder: Path) -> list[str]:
    """Tasks of the stream, from a note that every checkpoint has."""
    from experiments.streams.digits import digits5

    return [task.name for task in digits5(0).tasks]


def test_entries_are_what_the_tables_say() -> None:
    for entries in TABLES.values():
        assert len({entry.name for entry in entries}) == len(entries)
        for entry in entries:
            config = config_of(entry, Path("w"))
            assert config.workdir == Path("w") / entry.name
            assert protocol_of(config.experiment, config.protocol) == entry.protocol
            assert (ID_ALONE in entry.methods) == (entry.protocol == "task")
            assert config.seeds == (0, 1, 2)
            assert all(getattr(config, name) == value for name, value in entry.overrides.items())
    for entry in (*(entry for entry in TABLES["small"] if not entry.label), *TABLES["class"]):
        assert set(entry.methods) == set(METHODS) - {*PROMPTED} - (set() if entry.protocol == "task" else {ID_ALONE})


def test_the_command_says_what_the_numbers_depend_on() -> None:
    given = tables.Options("text", seeds=(0, 1), data_folder=Path("there"), workdir=Path("w"), jobs=2)
    assert tables.command(given) == "python -m experiments.tables text --data-folder FOLDER --seeds 0,1 --jobs 2"
    assert tables.command(tables.Options("small")) == "python -m experiments.tables small"


def test_every_table_has_a_title_and_a_place_on_the_page() -> None:
    page = (Path(__file__).parents[3] / "experiments" / "RESULTS.md").read_text()
    for table in TABLES:
        assert page.count(f"<!-- {block_of(table)} -->\n\n## {TITLES[table]}\n") == 1


def test_results_of_other_settings_are_not_kept(tmp_path: Path, cache: Path) -> None:
    assert go(tmp_path, cache, "--only", "class") == 0
    config = config_of(TINY[1], tmp_path, seeds=(0, 1), amount="quick")
    assert finished(config) is not None
    assert finished(config_of(TINY[1], tmp_path, seeds=(0,), amount="quick")) is None
    path = tmp_path / "digits5-class" / "results.json"
    content = json.loads(path.read_text())
    assert content["command"] == command_line(config)
    path.write_text(json.dumps({**content, "command": "python -m experiments.run"}))
    assert finished(config) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--only", "clinc"], "--only: got 'clinc', expected a match in digits5-task, digits5-class"),
        (["--only", "("], "--only: got '(' ("),
        (["--seeds", "1,1"], "--seeds: got (1, 1)"),
        (["--jobs", "-1"], "--jobs: got -1"),
        (["--page", "{folder}"], "got a folder, expected a file"),
        (["--page", "{folder}/other.md"], "expected <!-- results:small --> and then <!-- /results:small -->"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture, flags: list[str], words: str
) -> None:
    (tmp_path / "other.md").write_text("# Something else\n")
    assert go(tmp_path, cache, *(flag.format(folder=tmp_path) for flag in flags)) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert words in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["other.md"]


def test_a_run_of_other_settings_in_the_workdir_is_refused(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture
) -> None:
    assert go(tmp_path, cache, "--only", "class") == 0
    capsys.readouterr()
    assert go(tmp_path, cache, "--only", "class", "--preset", "default") == 2
    assert "resume with the same flags, or choose another folder" in capsys.readouterr().err
