"""Token streams as runs of the command line, on a tiny decoder: options, bits per byte, other tests, and the router."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pretrained_folders import pretrained_folder
from token_runs import ASKED, FEW, SAID, learnt, olora_folder, prompts_folder, write_lines

from experiments import run
from experiments.algorithms.token_checks import executed_answers
from experiments.config import experiment as streams
from experiments.config.experiment import Experiment
from experiments.config.methods import METHODS, method
from experiments.config.run_config import Config, parse
from experiments.config.token_parts import token_backbone, token_stream
from experiments.report.gains import KEYS
from experiments.stream_and_backbone import build
from experiments.streams.base import Stream
from experiments.streams.text_tasks import CompletionTask
from experiments.streams.token_stream import token_tasks
from share_jax.errors import InputError
from share_jax.models.pretrained_decoder import load_tokenizer_of
from share_jax.text.examples import Example

RUN = tuple(name for name in METHODS if not method(name).not_tokens and name != "frozen_few_shot")
"""The methods for a language model."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_folder("decoder", tmp_path_factory.mktemp("weights"))


def test_a_run_whose_tasks_have_changed_is_not_gone_on_with(tmp_path: Path, weights: Path, capsys: Any) -> None:
    data = prompts_folder(tmp_path / "data")
    words = ("prompts", weights, tmp_path / "run", "sequential_lora", "--data-folder", str(data))
    learnt(*words)
    (data / "stream.json").write_text('{"tasks": ["words", "sql", "mongo"]}')
    again = ["--experiment", "prompts", "--weights", str(weights), "--workdir", str(tmp_path / "run"), "--resume"]
    assert run.main([*again, "--methods", "sequential_lora", "--data-folder", str(data), *FEW]) == 2
    assert "got tasks words, sql, mongo, expected mongo, sql, words, which are learnt" in capsys.readouterr().err


def test_one_question_is_asked_behind_examples(tmp_path: Path, weights: Path) -> None:
    data = prompts_folder(tmp_path / "data")
    found = learnt("prompts", weights, tmp_path / "run", "frozen_few_shot", "--data-folder", str(data))
    assert found["methods"]["frozen_few_shot"]["mean"]["acc"] is not None


@pytest.mark.slow
def test_options_are_chosen_and_the_router_and_the_exact_match_stand_beside_them(tmp_path: Path, weights: Path) -> None:
    data = olora_folder(tmp_path / "data")
    found = learnt("olora", weights, tmp_path / "run", "shared_a", "--data-folder", str(data), "--task-order", "6")
    assert found["tasks"] == ["amazon", "RTE"]
    assert found["metrics"] == ["option_accuracy"] * 2
    assert "--task-order 6" in found["command"]
    extra = found["methods"]["shared_a"]["runs"][0]["extra"]
    assert extra["tasks_with_changed_logits"] == 0
    assert set(extra["exact_match"]) == {"amazon", "RTE"}
    assert extra["acc_with_task_id"] == found["methods"]["shared_a"]["mean"]["acc"]
    assert {"router_accuracy", "acc_with_router", "exact_match_with_router"} <= set(extra)
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "## Router" in report
    assert "## Exact match" in report


@pytest.mark.slow
def test_texts_are_scored_in_bits_per_byte_and_the_kept_gain_is_told(tmp_path: Path, weights: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("first", "second"):
        write_lines(data / f"{name}.jsonl", [{"text": f"the cat sat on a dog {name}"}, {"text": f"on the {name}"}] * 3)
    methods = "sequential_lora,frozen"
    found = learnt("prompts", weights, tmp_path / "run", methods, "--data-folder", str(data), "--steps", "8")
    assert found["metrics"] == ["bits_saved"] * 2
    extra = found["methods"]["sequential_lora"]["runs"][0]["extra"]
    frozen, learnt_, last = (extra[key] for key in KEYS[:3])
    matrix = found["methods"]["sequential_lora"]["runs"][0]["accuracy_matrix"]
    assert last["first"] == pytest.approx(8 * (1 - matrix[1][0]))
    kept = (frozen["first"] - last["first"]) / (frozen["first"] - learnt_["first"])
    assert frozen["first"] > learnt_["first"]
    assert extra["gain_kept"]["first"] == pytest.approx(kept)
    assert extra["gain_kept"]["second"] == pytest.approx(1)
    assert "router_accuracy" not in extra, "a text has no prompt to choose by"
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "## Bits per byte" in report


def test_what_is_not_for_a_language_model_is_refused_before_the_run(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    data = prompts_folder(tmp_path / "data")
    words = ["--experiment", "prompts", "--weights", str(weights), "--data-folder", str(data), *FEW]
    refused = [name for name in METHODS if method(name).not_tokens]
    assert {"majority", "frozen_head", "sequential_lora_heads", "l2p"} <= set(refused)
    assert run.main([*words, "--workdir", str(tmp_path / "run"), "--methods", "shared_a,l2p"]) == 2
    told = capsys.readouterr().err
    assert "method l2p on prompts: got a decoder, which takes no prompts" in told
    assert "leave it out of --methods" in told
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_held_out_examples_have_no_other_options(tmp_path: Path, weights: Path) -> None:
    config = parse(["--experiment", "olora", "--weights", str(weights), *FEW, "--held-out",
                    "--data-folder", str(olora_folder(tmp_path / "data"))])  # fmt: skip
    with pytest.raises(InputError, match="leave --held-out out"):
        build(config, lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_every_method_for_a_language_model_learns_prompts(tmp_path: Path, weights: Path, name: str) -> None:
    data = prompts_folder(tmp_path / "data")
    found = learnt("prompts", weights, tmp_path / "run", name, "--data-folder", str(data))
    matrix = np.array(found["methods"][name]["runs"][0]["accuracy_matrix"], np.float64)
    assert np.isfinite(matrix[-1]).all()
    again = learnt("prompts", weights, tmp_path / "run", name, "--data-folder", str(data), "--resume")
    same = [each["methods"][name]["runs"][0]["accuracy_matrix"] for each in (found, again)]
    assert same[0] == same[1]


@pytest.fixture
def checked(tmp_path: Path, weights: Path) -> Iterator[str]:
    """An experiment whose answers are run: they must be short, and one of a further test set is asked, too."""

    def stream(config: Config) -> Stream:
        def task(name: str) -> CompletionTask:
            own = [Example(f"{asked} {name} :", SAID[name]) for asked in ASKED]
            checks = {"test": [lambda said: len(said) < 500] * 4, "far": [lambda said: said == SAID["sql"]]}
            return CompletionTask(name, own, {"test": own, "far": own[:1]}, "exact", checks=checks)

        return token_stream(config, [task("sql"), task("words")])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_REGISTERED", {})
        streams.register(Experiment("own", {"quick": {}}, stream, token_backbone, reads=("weights",)))
        yield "own"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared_a", "share"])
def test_answers_are_run_and_further_tests_are_scored(tmp_path: Path, weights: Path, checked: str, name: str) -> None:
    extra = learnt(checked, weights, tmp_path / "run", name)["methods"][name]["runs"][0]["extra"]
    assert extra["executed"]["test"] == {"sql": {"right": 4, "asked": 4}, "words": {"right": 4, "asked": 4}}
    assert extra["executed"]["far"]["words"] == {"right": 0, "asked": 1}
    assert set(extra["further"]["far"]) == {"sql", "words"}
    assert [each["task"] for each in extra["samples"]] == ["sql", "words"]
    assert "Answers that were run, far" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


def test_what_is_exactly_right_is_run_and_not_written_again(weights: Path) -> None:
    own = [Example(f"{asked} sql :", SAID["sql"]) for asked in ASKED]
    told: list[str] = []
    text = CompletionTask("sql", own, {"test": own}, "exact", checks={"test": [lambda said: not told.append(said)] * 4})
    made = token_tasks([text], load_tokenizer_of(weights), 32)
    job: Any = SimpleNamespace(stream=Stream("own", "task-incremental", made))
    nothing: Any = None
    found = executed_answers(job, nothing, nothing, {"sql": {"test": [True] * 4}})
    assert found == {"executed": {"test": {"sql": {"right": 4, "asked": 4}}}}
    assert told == [SAID["sql"]] * 4
