"""Presets and commands are what stored runs were made with; an experiment's file says what its command gave."""

import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from experiments.config.experiment import experiments
from experiments.config.numbers import ConfigError
from experiments.config.run_config import MAIN_EXPERIMENT, MAIN_PRESET, Config, command_line, parse, preset

STORED: dict[str, str] = json.loads(Path(__file__).with_name("presets.json").read_text())
"""Digest of all values and of the command, by stream, preset and protocol."""

RESULTS = (Path(__file__).parents[3] / "experiments/RESULTS.md").read_text(encoding="utf-8")


def flat(config: Any) -> dict[str, Any]:
    """Every value by its flag's name."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "numbers":
            for each in value:
                found |= flat(each)
        else:
            found[field.name] = str(value) if isinstance(value, Path) else value
    return found


def digest(config: Config) -> str:
    whole = json.dumps([flat(config), command_line(config)], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted({key.split()[0] for key in STORED}))
def test_presets_and_commands_are_those_of_stored_runs(name: str) -> None:
    for key, stored in STORED.items():
        stream, amount, protocol = key.split()
        if stream == name:
            chosen: Any = None if protocol == "None" else protocol
            assert digest(preset(stream, amount, chosen)) == stored, key  # type: ignore[arg-type]


def test_a_command_repeats_its_run() -> None:
    words = "--experiment digits5 --ewc-strength 7 --num-basis 20 --max-error 0.1 --bf16 --steps 9 --max-length 33"
    config = parse(words.split())
    told = command_line(config)
    expected = "--num-basis 20 --max-error 0.1 --bf16 --steps 9 --ewc-strength 7.0 --max-length 33"
    assert told == f"python -m experiments.run --experiment digits5 --preset default {expected}"
    assert flat(parse(told.split()[3:])) == flat(config)


@pytest.mark.parametrize("name", ["newsgroups10", "clinc150", "digits5", "split_mnist5", "rotated_mnist10"])
def test_the_figures_of_an_experiments_file_are_the_published_ones(name: str) -> None:
    module = (Path(__file__).parents[3] / f"experiments/config/{name}.py").read_text(encoding="utf-8")
    assert f"python -m experiments.run --experiment {name}" in module
    section = RESULTS.split(f"\n### {name}, ")[1].split("\n### ")[0]
    table = [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| `")]
    rows = {cells[0].strip("`"): cells for cells in reversed(table)}
    figures = re.findall(r"`(\w+)` ([\d.]+ ± [\d.]+) in\s([\d.]+\d)", module)
    assert [method for method, _, _ in figures] == ["shared_a", "share", "separate_lora"]
    for method, accuracy, seconds in figures:
        assert (rows[method][1], rows[method][-1]) == (accuracy, seconds)


def test_a_command_says_that_a_limit_was_taken_away() -> None:
    config = parse(["--experiment", "queries10", "--train-per-task", "None", "--adam-b2", "0.95"])
    told = command_line(config)
    assert told.endswith("--preset default --adam-b2 0.95 --train-per-task None")
    assert flat(parse(told.split()[3:])) == flat(config)


@pytest.mark.parametrize("wrong", ["1", "-0.1", "nan"])
def test_a_decay_out_of_range_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"--adam-b2: got .*, expected at least 0 and below 1"):
        parse(["--adam-b2", wrong])


def test_every_experiment_has_every_preset() -> None:
    for each in experiments().values():
        short = {MAIN_PRESET} if each.name == MAIN_EXPERIMENT else set()
        assert set(each.presets) == {"quick", "default", "full"} | short


def test_a_run_that_is_not_told_is_the_main_job_and_others_have_no_short_preset() -> None:
    assert parse([]) == preset(MAIN_EXPERIMENT, MAIN_PRESET)
    assert parse(["--experiment", MAIN_EXPERIMENT]) == preset(MAIN_EXPERIMENT, "default")
    assert parse(["--preset", "quick"]) == preset(MAIN_EXPERIMENT, "quick")
    with pytest.raises(ConfigError, match="--preset of digits5: got short, expected quick, default, full"):
        parse(["--experiment", "digits5", "--preset", "short"])
