"""What baselines' rates and strengths are chosen on."""

from pathlib import Path

import pytest

from experiments.config.experiment import protocol_of
from experiments.config.run_config import Config
from experiments.config.run_config import value as value_of
from experiments.tables import choices
from experiments.tables.choices import ENTRIES, GRID, TRIALS, accuracy, page, used


def test_a_trial_gives_each_method_one_value_on_held_out_examples(tmp_path: Path) -> None:
    configs = [trial.config(tmp_path, (0, 1)) for trial in TRIALS]
    assert len({config.workdir for config in configs}) == len(TRIALS)
    for trial, config in zip(TRIALS, configs, strict=True):
        assert config.held_out
        assert config.methods == tuple(trial.values)
        assert config.seeds == (0, 1)
        assert config.experiment == trial.entry.experiment
        assert protocol_of(config.experiment) == trial.entry.protocol or config.protocol == trial.entry.protocol
        for method, value in trial.values.items():
            assert value_of(config, GRID[method][0]) == value


def test_every_value_is_tried_and_one_of_them_is_used() -> None:
    for entry in ENTRIES:
        for method, (_, values) in GRID.items():
            mine = [trial.values[method] for trial in TRIALS if trial.entry is entry and method in trial.values]
            assert mine == list(values)
            assert used(entry, method) in values


def test_the_page_marks_the_best_and_what_is_used() -> None:
    entry = ENTRIES[0]
    mine = [trial for trial in TRIALS if trial.entry is entry]
    found = {
        trial: {"methods": {name: {"mean": {"acc": 0.5 + trial.place / 100}} for name in trial.values}}
        for trial in mine
    }
    row = next(line for line in page(found, (0, 1)).splitlines() if "`ewc_lora`" in line)
    cells = row.split("|")[3].strip().split(", ")
    assert [cell.partition(":")[0].rstrip("*") for cell in cells] == [f"{value:g}" for value in GRID["ewc_lora"][1]]
    starred = [cell for cell in cells if cell.partition(":")[0].endswith("*")]
    assert [cell.partition("*")[0] for cell in starred] == [f"{used(entry, 'ewc_lora'):g}"]
    assert ["**" in cell for cell in cells] == [False] * (len(cells) - 1) + [True]
    assert "`--ewc-strength`" in row


def test_only_some_streams_are_tried_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Config] = []
    monkeypatch.setattr(choices, "run_apart", lambda configs, *_: asked.extend(configs))
    options = choices.Options(only="mnist5", workdir=tmp_path / "w", page=tmp_path / "page.md")
    choices.make(options, print)
    assert {config.experiment for config in asked} == {"split_mnist5"}
    assert all(entry.experiment in (tmp_path / "page.md").read_text() for entry in ENTRIES)


def test_accuracy_is_in_percent() -> None:
    assert accuracy({"methods": {"l2p": {"mean": {"acc": 0.875}}}}, "l2p") == 87.5


def test_the_presets_have_what_the_page_shows_to_be_best() -> None:
    text = (Path(__file__).parents[3] / "experiments" / "CHOICES.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ENTRIES) * len(GRID)
    for row, (entry, method) in zip(rows, [(entry, method) for entry in ENTRIES for method in GRID], strict=True):
        (best,) = [cell for cell in row.split("|")[3].strip().split(", ") if "**" in cell]
        assert float(best.partition(":")[0].rstrip("*")) == used(entry, method), (entry.name, method)


def test_the_folder_goes_to_the_stream_that_reads_one(tmp_path: Path) -> None:
    for trial in TRIALS:
        found = trial.config(tmp_path, (0,), tmp_path / "data").data_folder
        assert found == (tmp_path / "data" if trial.entry.experiment == "clinc150" else None)
