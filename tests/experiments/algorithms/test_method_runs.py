"""The methods as runs: each learns the digits, and a resumed run of a baseline ends as one that ran through."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import tiny_vit

from experiments import run as run_module
from experiments.algorithms.replay import ReplayNumbers
from experiments.backbones.backbone import Backbone, digits_vit
from experiments.config import digits5
from experiments.config.methods import METHODS, PROMPTED
from experiments.config.numbers import ConfigError
from experiments.config.run_config import command_line, parse
from experiments.report.progress import NullProgress
from experiments.report.results import load_results
from share_jax.checkpoint import checkpoint as ckpt

DIGITS = ["--experiment", "digits5", "--quiet", "--eval-batch-size", "64"]
ON_CLASSES = tuple(name for name in METHODS if name not in PROMPTED)
"""The methods that learn classes."""

MEMORIES = ("der_lora", "inflora")
STOPPED = (*MEMORIES, "joint", "share_coefficients", "majority")
"""Methods that are stopped in every run of the tests, and the one that trains nothing."""

NAIVE = ("sequential_lora", "sequential_lora_heads")
"""What forgets without remedy: no bar for the ACC at the end."""
STOPS = [
    ("inflora", 7),
    ("joint", 11),
    ("der_lora", 11),
    ("der_lora", 16),
    ("share_coefficients", 18),
    *((name, 11) for name in ON_CLASSES if name not in STOPPED),
]
"""A method, and the update after which its run is stopped: of four to a task, saved every two."""
FEW = [*DIGITS, "--preset", "quick", "--steps", "4", "--save-every", "2", "--buffer-size", "20", "--methods"]


@cache
def _pretrained(seed: int, classes: int, dtype: Any, first_layer: int) -> Backbone:
    return digits_vit(seed, classes, dtype, first_layer)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits5, "digits_vit", tiny_vit)


def found(folder: Path, method: str) -> dict[str, Any]:
    """The results without wall times, and the checksums of all that was saved."""
    content = load_results(folder / "results.json")["methods"][method]
    runs = [{key: value for key, value in run.items() if key != "seconds"} for run in content["runs"]]
    manifest = ckpt.open_checkpoint(folder / "checkpoints" / method / "seed-0").manifest
    assert manifest.inflight is None
    if method in MEMORIES:
        assert manifest.shared is None or "memory" in next(iter(manifest.shared["leaves"]))
    saved = {what: record["leaves"] for what, record in manifest.records().items()}
    return {"runs": runs, "params": content["params"], "saved": saved}


def learnt(method: str, run: dict[str, Any]) -> float:
    """How well a method has learnt: each task at its turn, but for two that have no turns or one head for all tasks."""
    if method == "joint":
        return run["acc"]
    if method == "sequential_lora":
        return run["accuracy_matrix"][-1][-1]
    return run["learning_accuracy"]


class Stopped(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a method's run that went through."""

    @cache
    def run(method: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / method
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digits5, "digits_vit", tiny_vit)
            assert run_module.main([*FEW, method, "--workdir", str(folder)]) == 0
        return folder

    return run


def stopped(words: list[str], update: int) -> None:
    """A run that is killed after an update, and goes on."""
    count = 0

    def counted(self: NullProgress, steps_done_delta: int = 1, loss: object = None) -> None:
        nonlocal count
        count += steps_done_delta
        if count == update:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NullProgress, "update", counted)
        with pytest.raises(Stopped):
            run_module.main(words)
    assert run_module.main([*words, "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("method", "update"), STOPS)
def test_a_resumed_run_ends_as_one_that_ran_through(
    whole: Callable[[str], Path], tmp_path: Path, method: str, update: int
) -> None:
    """Stopped within a later task, with a memory of those before it, or after its last update: the same bits."""
    stopped([*FEW, method, "--workdir", str(tmp_path / "broken")], update)
    assert found(tmp_path / "broken", method) == found(whole(method), method)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_resumed_run_without_ids_ends_as_one_that_ran_through(tmp_path: Path) -> None:
    """One method with the router and one with one head that grows."""
    words = [*FEW, "shared_a,l2p", "--protocol", "class"]
    assert run_module.main([*words, "--workdir", str(tmp_path / "whole")]) == 0
    stopped([*words, "--workdir", str(tmp_path / "broken")], 11)
    for method in ("shared_a", "l2p"):
        assert found(tmp_path / "broken", method) == found(tmp_path / "whole", method)


@pytest.mark.slow
def test_memories_are_counted(whole: Callable[[str], Path]) -> None:
    sizes = {name: load_results(whole(name) / "results.json")["methods"][name]["bytes"] for name in MEMORIES}
    image, classes = 64 * 4, 2
    assert sizes["der_lora"]["arrays_memory"] == 20 * (image + 3 * 4 + classes * 4) + 4
    for each in sizes.values():
        assert each["files_shared"] > 0


def test_the_numbers_of_single_methods_are_flags_that_are_checked_and_told() -> None:
    config = parse([*DIGITS, "--buffer-size", "50", "--replay-batch", "8", "--ewc-strength", "7"])
    assert config.of(ReplayNumbers) == ReplayNumbers(buffer_size=50, replay_batch=8)
    words = command_line(config)
    assert "--buffer-size 50 --replay-batch 8" in words
    assert parse(words.split()[3:]).numbers == config.numbers
    refused = {
        ("--prompt-top", "11"): "--prompt-top: got 11, expected at most 10",
        ("--buffer-size", "0"): "--buffer-size: got 0, expected at least 1",
        ("--inflora-energy", "1.5"): "--inflora-energy: got 1.5, expected above 0 and at most 1",
        ("--ewc-strength", "-1"): "--ewc-strength: got -1.0, expected at least 0",
        ("--replay-batch", "7", "--accumulate", "2"): "--replay-batch: got 7, expected a multiple of 2",
    }
    for flags, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            parse([*DIGITS, *flags])


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in ON_CLASSES if name != "majority"])
def test_every_method_learns_the_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(digits5, "digits_vit", _pretrained)
    words = [*DIGITS, "--preset", "default", "--methods", f"{method},majority"]
    assert run_module.main([*words, "--workdir", str(tmp_path / "run")]) == 0
    methods = load_results(tmp_path / "run" / "results.json")["methods"]
    run, majority = methods[method]["runs"][0], methods["majority"]["runs"][0]["acc"]
    assert learnt(method, run) > majority + 0.35
    if method not in NAIVE:
        assert run["acc"] > majority + 0.2
    assert np.isfinite([value for row in run["accuracy_matrix"] for value in row if value is not None]).all()
