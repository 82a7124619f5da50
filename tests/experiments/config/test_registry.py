"""A stream, and a method, of one's own: one object each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import tiny_vit

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import Plan, learn
from experiments.config import experiment as streams
from experiments.config import methods
from experiments.config.experiment import Experiment, Protocol
from experiments.config.methods import Method
from experiments.config.numbers import ConfigError, MethodNumbers
from experiments.config.run_config import command_line, parse, preset, value
from experiments.report.results import load_results
from experiments.run import run
from experiments.streams.base import Split, Stream, Task
from share_jax.errors import InputError
from share_jax.parameterizations.shared_a import SharedA


def stripes(config: Any) -> Stream:
    """Two tasks: is the left or the right half bright, is the upper or the lower."""

    def task(name: str, axis: int) -> Task:
        rng = np.random.default_rng(axis)
        labels = np.arange(24) % 2
        images = rng.uniform(0, 0.2, (24, 8, 8, 1)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            half = np.s_[4 * label : 4 * label + 4]
            image[(slice(None),) * (axis - 1) + (half,)] += 0.8
        split = Split({"images": images}, labels)
        return Task(name, (f"{name} 0", f"{name} 1"), split, split)

    return Stream("stripes", "task-incremental", (task("rows", 1), task("columns", 2)))


STRIPES = Experiment(
    "stripes",
    {amount: {"steps": 4, "batch_size": 8, "num_basis": 8, "phi": 2} for amount in ("quick", "default", "full")},
    stripes,
    lambda config, stream, classes, dtype: tiny_vit(0, classes, dtype, config.first_layer),
)


@dataclass(frozen=True)
class HalfNumbers(MethodNumbers):
    """What only `half_rank` reads."""

    half_divisor: int = 2
    """half_rank: what the run's rank is divided by."""

    def __post_init__(self) -> None:
        self.at_least(1, "half_divisor")


def run_half(job: Job) -> Outcome:
    """`shared_a` at a part of the rank."""
    return learn(job, Plan(SharedA(job.config.rank // job.config.of(HalfNumbers).half_divisor, job.config.alpha)))


HALF = Method("half_rank", run_half, (HalfNumbers,), tuned={"stripes": {"half_divisor": 4}})


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    """The stream and the method are there while a test runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_REGISTERED", {})
        patch.setattr(methods, "_REGISTERED", {})
        streams.register(STRIPES)
        methods.register(HALF)
        yield


@pytest.mark.slow
def test_a_stream_of_one_object_runs_with_two_methods_and_one_of_ones_own(tmp_path: Path) -> None:
    config = replace(preset("stripes", "quick"), methods=("shared_a", "share", "half_rank"), workdir=tmp_path / "run")
    content = load_results(run(replace(config, quiet=True)))
    assert content["experiment"] == "stripes"
    assert content["tasks"] == ["rows", "columns"]
    assert list(content["methods"]) == ["shared_a", "share", "half_rank"]
    sizes = {name: found["params"]["per_task"] for name, found in content["methods"].items()}
    assert sizes["half_rank"] * 4 == sizes["shared_a"]


def test_a_command_line_knows_both() -> None:
    config = parse(["--experiment", "stripes", "--methods", "half_rank", "--half-divisor", "2"])
    assert (config.steps, value(config, "half_divisor"), value(config, "phi")) == (4, 2, 2)
    assert command_line(config).endswith("--experiment stripes --preset default --methods half_rank --half-divisor 2")
    with pytest.raises(ConfigError, match="--half-divisor: got 0, expected at least 1"):
        parse(["--experiment", "stripes", "--half-divisor", "0"])


def test_its_own_protocol_holds() -> None:
    protocol: Protocol = "class"
    streams.register(replace(STRIPES, name="stripes_without_id", protocol=protocol))
    assert "sequential_lora_heads" not in preset("stripes_without_id", "quick").methods
    assert preset("stripes_without_id", "quick", "task").workdir == Path("runs/stripes_without_id-quick-task")


def test_no_name_is_taken_twice_or_unknown() -> None:
    with pytest.raises(InputError, match="'digits5' twice"):
        streams.register(replace(STRIPES, name="digits5"))
    with pytest.raises(InputError, match="'shared_a' twice"):
        methods.register(replace(HALF, name="shared_a"))
    with pytest.raises(ConfigError, match=r"--experiment: got no_stream, expected one of .*digits5.*stripes"):
        parse(["--experiment", "no_stream"])
    with pytest.raises(ConfigError, match=r"--methods: got .*no_method.*expected some of shared_a.*half_rank"):
        parse(["--experiment", "stripes", "--methods", "no_method"])
