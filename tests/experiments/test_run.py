"""The run as a user starts it: results, report and plots; workdirs; resuming; one compile per step."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import chex
import numpy as np
import pytest
from processes import without_times
from small_run import SMALL, matrices
from tiny_run import CONFIG, tiny_vit

from experiments import run as run_module
from experiments.algorithms import loop, objective
from experiments.config.methods import MAIN
from experiments.config.run_config import command_line, parse, preset
from experiments.report.progress import NullProgress
from experiments.report.results import load_results
from experiments.workdir import _work
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.errors import DivergedError


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """Every run here uses the tiny model."""
    from experiments.config import digits5

    patch = pytest.MonkeyPatch()
    patch.setattr(digits5, "digits_vit", tiny_vit)
    yield
    patch.undo()


def go(folder: Path, *more: str) -> int:
    return run_module.main([*SMALL, "--workdir", str(folder), *more])


def test_every_method_runs_and_leaves_results_report_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert go(tmp_path / "run") == 0
    content = load_results(tmp_path / "run" / "results.json")
    assert content["schema"] == 1
    assert content["experiment"] == "digits5"
    assert content["protocol"] == "task-incremental"
    assert list(content["methods"]) == list(MAIN)
    printed = capsys.readouterr().out
    for name in ("results.json", "report.md", "accuracy_matrix.png", "accuracy_over_tasks.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
        assert name in printed
    shared = content["methods"]["shared_a"]
    assert shared["runs"][0]["bwt"] == 0
    assert shared["runs"][0]["retention"] == 1
    assert shared["runs"][0]["extra"]["tasks_with_changed_logits"] == 0
    sequential = content["methods"]["sequential_lora_heads"]["runs"][0]
    assert sequential["extra"]["tasks_with_changed_logits"] == 4
    joint = content["methods"]["joint"]["runs"][0]["accuracy_matrix"]
    assert joint[0] == [None] * 5
    assert None not in joint[-1]
    matrix = shared["runs"][0]["accuracy_matrix"]
    assert all((value is None) == (j > i + 1) for i, row in enumerate(matrix) for j, value in enumerate(row))


@pytest.mark.slow
def test_parameters_are_those_of_the_trees(tmp_path: Path) -> None:
    assert go(tmp_path / "run", "--methods", "shared_a,separate_lora,sequential_lora,sequential_lora_heads,joint") == 0
    params = {n: m["params"] for n, m in load_results(tmp_path / "run" / "results.json")["methods"].items()}
    config, rank, tasks, classes = CONFIG, parse(SMALL).rank, 5, 2
    d, up, layers = config.hidden_size, config.intermediate_size, config.num_layers
    a, b, head = layers * up * rank, layers * rank * d, d * classes + classes
    assert params["shared_a"]["shared"] == a
    assert params["shared_a"]["per_task"] == b
    assert params["shared_a"]["heads_per_task"] == head
    assert params["shared_a"]["total_tasks"] == a + tasks * b
    assert params["shared_a"]["separate_lora_total"] == tasks * (a + b)
    assert params["shared_a"]["ratio_to_separate"] == pytest.approx((a + tasks * b) / (tasks * (a + b)))
    whole = tasks * (a + b + head)
    assert params["shared_a"]["ratio_to_separate_with_heads"] == pytest.approx((a + tasks * (b + head)) / whole)
    assert params["separate_lora"]["total_tasks"] == tasks * (a + b)
    assert params["separate_lora"]["ratio_to_separate"] == 1
    for once in ("sequential_lora", "sequential_lora_heads", "joint"):
        assert params[once]["total_tasks"] == a + b
    assert params["sequential_lora"]["ratio_to_separate_with_heads"] == pytest.approx((a + b + head) / whole)
    assert params["joint"]["ratio_to_separate_with_heads"] == pytest.approx((a + b + tasks * head) / whole)


def test_share_stores_few_numbers_per_task_and_its_measured_error_is_within_the_proven_bound(tmp_path: Path) -> None:
    flags = ("--num-basis", "8", "--phi", "4", "--adapt-tasks", "2")
    assert go(tmp_path / "run", "--methods", "share,share_coefficients", *flags) == 0
    methods = load_results(tmp_path / "run" / "results.json")["methods"]
    kernels, d, up, rank = CONFIG.num_layers, CONFIG.hidden_size, CONFIG.intermediate_size, 4
    for name, method in methods.items():
        params, extra = method["params"], method["runs"][0]["extra"]
        columns = list(extra["num_basis"].values())
        assert len(columns) == kernels
        assert all(1 <= k <= 8 for pair in columns for k in pair)
        assert params["per_task"] == sum(sum(pair) for pair in columns) * rank
        assert params["shared"] == sum(up * pair[0] + d * pair[1] for pair in columns)
        assert set(extra["error_bound"]) == set(extra["measured_error"])
        for task, bound in extra["error_bound"].items():
            assert extra["measured_error"][task] <= bound
        assert params["trained_per_later_task"] == (
            kernels * 2 * 8 * rank if name == "share_coefficients" else kernels * 4 * (d + up + 2 * rank)
        )
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Error of each task's update after all merges: share" in report


@pytest.mark.slow
def test_a_limit_on_the_proven_error_grows_the_bases(tmp_path: Path) -> None:
    flags = ("--methods", "share", "--num-basis", "20", "--phi", "4", "--steps", "20")
    assert go(tmp_path / "run", *flags, "--max-error", "0.001") == 0
    bounds = load_results(tmp_path / "run" / "results.json")["methods"]["share"]["runs"][0]["extra"]["error_bound"]
    assert max(bounds.values()) <= 0.001


class Stopped(BaseException):
    """Stands for a kill: nothing catches it."""


RESUMED = ("--methods", "shared_a,sequential_lora,share", "--num-basis", "12", "--phi", "4", "--save-every", "3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went through."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert go(folder, *RESUMED) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("updates", [3, 38, 61, 95])
def test_a_resumed_run_ends_as_one_that_ran_through(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates: int
) -> None:
    """Stopped within the first task, the last, and tasks of a second and a third method: the same bits at the end."""
    count = 0

    def update(self: NullProgress, steps_done_delta: int = 1, loss: object = None) -> None:
        nonlocal count
        count += steps_done_delta
        if count == updates:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(NullProgress, "update", update)
        with pytest.raises(Stopped):
            go(tmp_path / "broken", *RESUMED)
    assert go(tmp_path / "broken", *RESUMED, "--resume") == 0
    resumed, through = (load_results(folder / "results.json") for folder in (tmp_path / "broken", whole))
    assert without_times(resumed) == without_times(through)
    for name in ("shared_a", "sequential_lora", "share"):
        stores = [
            ckpt.open_checkpoint(folder / "checkpoints" / name / "seed-0") for folder in (whole, tmp_path / "broken")
        ]
        leaves = [{task: record["leaves"] for task, record in store.manifest.tasks.items()} for store in stores]
        assert leaves[0] == leaves[1]
        assert [store.manifest.inflight for store in stores] == [None, None]


def test_a_workdir_with_content_is_refused_without_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    assert go(folder, "--methods", "majority") == 0
    before = (folder / "results.json").read_bytes()
    assert go(folder, "--methods", "majority") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --workdir")
    assert "--resume" in error
    assert "--overwrite" in error
    assert (folder / "results.json").read_bytes() == before
    assert go(folder, "--methods", "majority", "--steps", "9", "--resume") == 2
    assert "resume with the same flags" in capsys.readouterr().err
    assert go(folder, "--methods", "majority", "--steps", "9", "--overwrite") == 0


def test_overwrite_removes_nothing_that_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert go(tmp_path, "--overwrite") == 2
    assert "choose another folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_a_resumed_run_may_add_methods_and_seeds(tmp_path: Path) -> None:
    assert go(tmp_path / "run", "--methods", "shared_a") == 0
    first = matrices(tmp_path / "run")["shared_a"][0]
    assert go(tmp_path / "run", "--methods", "shared_a,majority", "--seeds", "0,1", "--resume") == 0
    after = matrices(tmp_path / "run")
    assert after["shared_a"][0] == first
    assert len(after["shared_a"]) == len(after["majority"]) == 2


def test_each_step_is_traced_once_and_nothing_compiles_after_the_first_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jax import monitoring

    compiled: list[str] = []
    monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None
    )
    traced = chex.assert_max_traces(n=2)(objective.classification)
    monkeypatch.setattr(objective, "classification", traced)
    counts: list[int] = []
    learn_next = loop.Sequence.learn_next

    def counted(self: loop.Sequence, course: loop.StreamState) -> loop.StreamState:
        after = learn_next(self, course)
        counts.append(len(compiled))
        return after

    monkeypatch.setattr(loop.Sequence, "learn_next", counted)
    assert go(tmp_path / "run", "--methods", "shared_a") == 0
    assert len(counts) == 5
    assert counts[0] > 0
    assert counts[1:] == counts[:1] * 4


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ("shared_a", "--learning-rate"),
        ("full_finetune", "--full-learning-rate"),
        ("houlsby_adapters", "--adapter-learning-rate"),
        ("l2p", "--prompt-learning-rate"),
    ],
)
def test_a_loss_that_is_not_a_number_stops_with_task_step_and_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture, method: str, rate: str
) -> None:
    assert go(tmp_path / "run", "--methods", method, rate, "1e30", "--clip-norm", "1e30") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"loss of {method}, task" in error
    assert "step 2: got nan" in error
    assert f"lower {rate}, now 1e+30" in error
    assert issubclass(DivergedError, ArithmeticError)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods", "shared_b"], "--methods: got ['shared_b']"),
        (["--steps", "0"], "--steps: got 0"),
        (["--seeds", "1,1"], "--seeds: got (1, 1)"),
        (["--seeds=-1"], "--seeds: got (-1,)"),
        (["--methods", "majority,majority"], "--methods: got ('majority', 'majority'), expected each only once"),
        (["--methods", "majority,frozen"], "stream of method frozen: got classes"),
        (["--task-order", "4"], "--task-order: got 4, expected none: digits5 does not read it"),
        (["--weights", "own"], "--weights: got own, expected none: digits5 does not read it"),
        (["--train-per-task", "-5"], "--train-per-task: got -5"),
        (["--test-per-task", "0"], "--test-per-task: got 0"),
        (["--order-seed", "-1"], "--order-seed: got -1"),
        (["--resume", "--overwrite"], "--resume and --overwrite: got both"),
        (["--targets", "encoder/nothing"], "which matches no path"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture, flags: list[str], words: str
) -> None:
    assert go(tmp_path / "run", *flags) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m experiments.run --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "u", "")


def test_the_command_line_repeats_the_run_and_holds_no_path(tmp_path: Path) -> None:
    config = parse([*SMALL, "--workdir", str(tmp_path), "--targets", "a,b", "--seeds", "3,4", "--bf16"])
    words = command_line(config)
    assert str(tmp_path) not in words
    assert "--data-folder" not in words
    again = parse(words.split()[3:])
    assert (again.steps, again.targets, again.seeds, again.bf16) == (8, ("a", "b"), (3, 4), True)
    assert preset("digits5", "quick").steps == 40


def test_the_command_line_names_weights_and_that_there_is_a_data_folder(tmp_path: Path) -> None:
    config = parse(["--experiment", "prompts", "--data-folder", str(tmp_path), "--weights", f"{tmp_path}/Qwen3-0.6B/"])
    words = command_line(config)
    assert words.endswith("--experiment prompts --preset default --data-folder FOLDER --weights Qwen3-0.6B")
    elsewhere = replace(config, data_folder=Path("other"), weights=Path("moved/model.gguf"))
    assert _work(config) == _work(elsewhere)
    assert command_line(elsewhere) != words


def test_bfloat16_compute_keeps_float32_parameters(tmp_path: Path) -> None:
    assert go(tmp_path / "run", "--methods", "shared_a", "--bf16") == 0
    manifest = json.loads((tmp_path / "run/checkpoints/shared_a/seed-0/manifest.json").read_text())
    leaves = [leaf for task in manifest["tasks"].values() for leaf in task["leaves"].values()]
    assert {leaf["dtype"] for leaf in leaves} == {"float32"}
    matrix = np.array(matrices(tmp_path / "run")["shared_a"][0][-1], float)
    assert np.isfinite(matrix).all()
