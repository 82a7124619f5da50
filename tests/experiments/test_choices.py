"""What baselines' rates and strengths are chosen on."""

from pathlib import Path

from experiments.baselines import Baselines
from experiments.config import protocol_of
from experiments.tables.choices import GRID, TRIALS, accuracy, page, used


def test_a_trial_is_one_method_with_one_value_on_held_out_examples(tmp_path: Path) -> None:
    configs = [trial.config(tmp_path, (0, 1)) for trial in TRIALS]
    assert len({config.workdir for config in configs}) == len(TRIALS)
    for trial, config in zip(TRIALS, configs, strict=True):
        assert config.held_out
        assert config.methods == (trial.method,)
        assert config.seeds == (0, 1)
        assert config.experiment == trial.entry.experiment
        assert protocol_of(config.experiment) == trial.entry.protocol or config.protocol == trial.entry.protocol
        assert getattr(config.baselines, trial.field) == trial.value


def test_the_values_that_are_used_were_tried() -> None:
    for method, (field, values) in GRID.items():
        assert hasattr(Baselines(), field)
        for entry in {trial.entry.name: trial.entry for trial in TRIALS}.values():
            mine = [trial for trial in TRIALS if trial.entry is entry and trial.method == method]
            assert [trial.value for trial in mine] == list(values)
            assert sum(used(trial) for trial in mine) == 1


def test_the_page_marks_the_best_and_what_is_used() -> None:
    mine = [trial for trial in TRIALS if trial.entry is TRIALS[0].entry and trial.method == "ewc_lora"]
    found = {trial: 50.0 + i for i, trial in enumerate(mine)}
    row = next(line for line in page(found, (0, 1)).splitlines() if "`ewc_lora`" in line)
    cells = row.split("|")[3].strip().split(", ")
    assert len(cells) == len(mine)
    for trial, cell in zip(mine, cells, strict=True):
        assert cell.partition(":")[0].endswith("*") == used(trial)
        assert ("**" in cell) == (trial is mine[-1])
    assert "`--ewc-strength`" in row


def test_accuracy_is_that_of_the_only_method_in_percent() -> None:
    assert accuracy({"methods": {"l2p": {"mean": {"acc": 0.875}}}}) == 87.5
