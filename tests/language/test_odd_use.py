"""What users do beside the plain path: odd prompts, names and places, two processes, trainings that were broken off."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_bank import EXAMPLES, SHORT, said, write

from share_jax import language
from share_jax.cli.main import main
from share_jax.errors import BusyError
from share_jax.language.changing import changing
from share_jax.language.training import Training
from share_jax.models import Completion
from share_jax.runtime.preemption import Preempted
from share_jax.storage.lock import LONG, hold


def broken_off(folder: Path, task: str) -> None:
    """A training of a task that ends after its first save."""

    class Stop:
        def skip(self, steps: int, /) -> None: ...
        def saving(self) -> None: ...
        def update(self, steps: int, loss: object, /) -> None:
            self.done = getattr(self, "done", 0) + steps
            if self.done == 2:
                raise Preempted

    often = Training(epochs=2, batch_size=2, save_every=1)
    with pytest.raises(Preempted):
        language.learn(language.open_language_bank(folder), task, EXAMPLES, often, progress=Stop())


# ---- exporting


def test_export_of_all_replaces_adapters_alone(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "out" / "cats").mkdir(parents=True)
    (place / "out" / "cats" / "thesis.txt").write_text("precious")
    for more in ([], ["--overwrite"]):
        code, error = said(capsys, "export", "bank", "--all", "-o", "out", *more)
        assert (code, "neither a set nor an adapter" in error) == (2, True)
    assert (place / "out" / "cats" / "thesis.txt").read_text() == "precious"
    opened = language.open_language_bank("bank")
    with pytest.raises(ValueError, match="no adapter"):
        language.export_tasks(opened, "out", overwrite=True)
    (place / "out" / "cats" / "thesis.txt").unlink()
    assert said(capsys, "export", "bank", "--all", "-o", "out")[0] == 0
    assert "pass --overwrite" in said(capsys, "export", "bank", "--all", "-o", "out")[1]
    assert said(capsys, "export", "bank", "--all", "-o", "out", "--overwrite")[0] == 0


def test_nothing_is_exported_into_the_bank_itself(place: Path, capsys: pytest.CaptureFixture) -> None:
    for out in ("bank", "bank/inside"):
        code, error = said(capsys, "export", "bank", "--all", "-o", out, "--overwrite")
        assert (code, "which is read" in error) == (2, True)
    assert said(capsys, "tasks", "bank")[0] == 0


@pytest.mark.parametrize("name", ["a/b", "../../evil", "a\nb", ".", "x" * 200])
def test_a_name_that_no_folder_can_have_is_refused(place: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    code, error = said(capsys, "learn", "bank", "--task", name, "--data", "cats.jsonl", "--epochs", "1")
    assert (code, "choose another name" in error) == (2, True)


def test_a_task_of_a_bad_name_hinders_no_other(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Banks of before have them."""
    monkeypatch.setattr("share_jax.language.learning.check_task_name", lambda *words: None)
    language.learn(language.open_language_bank("bank"), "a/b", EXAMPLES, SHORT)
    assert said(capsys, "export", "bank", "cats", "-o", "one")[0] == 0
    assert said(capsys, "export", "bank", "a/b", "-o", "other")[0] == 0
    for words in (("export", "bank", "--all", "-o", "all"), ("compress", "bank", "-o", "set")):
        code, error = said(capsys, *words)
        assert (code, "share-jax export BANK TASK -o DIR" in error) == (2, True)


# ---- a model that has moved


def test_a_bank_finds_its_model_from_any_folder(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, "learn", "new", "--model", "decoder", "--task", "a", "--data", "cats.jsonl", "--epochs", "1",
                "--rank", "2", "--first-layer", "1")[0] == 0  # fmt: skip
    assert Path(language.read_settings("new").model) == place / "decoder"
    settings = json.loads((place / "new" / "language_model.json").read_text())
    (place / "new" / "language_model.json").write_text(json.dumps({**settings, "model": "decoder"}))  # as of before
    monkeypatch.chdir("/")
    assert said(capsys, "generate", place / "new", "--task", "a", "--prompt", "the cat", "--max-tokens", "2")[0] == 0


def test_a_model_that_moved_is_named_once(place: Path, capsys: pytest.CaptureFixture) -> None:
    settings = json.loads((place / "bank" / "language_model.json").read_text())
    (place / "bank" / "language_model.json").write_text(json.dumps({**settings, "model": "gone"}))
    code, error = said(capsys, "generate", "bank", "--task", "cats", "--prompt", "the cat")
    assert (code, "model of bank bank: got nothing at gone" in error, "--model PATH" in error) == (2, True, True)
    assert said(capsys, "export", "bank", "cats", "-o", "one", "--model", "decoder")[0] == 0
    words = ("learn", "bank", "--task", "b", "--data", "cats.jsonl", "--epochs", "1", "--model", "decoder")
    assert said(capsys, *words)[0] == 0
    assert said(capsys, "generate", "bank", "--task", "b", "--prompt", "the cat", "--max-tokens", "2")[0] == 0


# ---- trainings that were broken off, and two processes


def test_another_task_does_not_drop_a_training_that_was_broken_off(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert said(capsys, "export", "bank", "cats", "-o", "dogs")[0] == 0
    broken_off(place / "bank", "second")
    for words in (("learn", "bank", "--task", "third", "--data", "cats.jsonl"), ("import", "bank", "dogs")):
        code, error = said(capsys, *words)
        assert (code, "training of 'second' that was broken off after 1 updates" in error) == (2, True), error
    assert main(["tasks", "bank", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["in_flight"] == {"task": "second", "updates": 1}
    code, _ = said(capsys, "learn", "bank", "--task", "third", "--data", "cats.jsonl", "--epochs", "1", "--restart")
    assert code == 0


def test_other_examples_than_a_training_began_with_are_refused(place: Path, capsys: pytest.CaptureFixture) -> None:
    broken_off(place / "bank", "second")
    with pytest.raises(ValueError, match=r"examples: got others, .*--restart"):
        language.learn(language.open_language_bank("bank"), "second", EXAMPLES[::-1], Training(2, 2, save_every=1))


def test_a_bank_is_changed_by_one_process_at_a_time(place: Path, capsys: pytest.CaptureFixture) -> None:
    words = ("learn", "bank", "--task", "second", "--data", "cats.jsonl", "--epochs", "1")
    with hold(place / "bank", LONG):
        code, error = said(capsys, *words)
    assert (code, "expected no other run in it" in error) == (2, True)
    opened = language.open_language_bank("bank")
    assert said(capsys, *words)[0] == 0
    with pytest.raises(BusyError, match="open the bank again"):
        language.learn(opened, "third", EXAMPLES, SHORT)


def test_a_bank_that_is_only_held_stays_as_it_was(place: Path) -> None:
    opened = language.open_language_bank("bank")
    before = {path.relative_to(place) for path in (place / "bank").rglob("*")}
    with changing(opened, "second"):
        pass
    assert {path.relative_to(place) for path in (place / "bank").rglob("*")} == before


def test_a_folder_that_is_no_bank_stays_as_it_was(place: Path, capsys: pytest.CaptureFixture) -> None:
    words = ("learn", "decoder", "--model", "decoder", "--task", "a", "--data", "cats.jsonl", "--epochs", "1")
    before = sorted(path.name for path in (place / "decoder").iterdir())
    code, error = said(capsys, *words)
    assert (code, "a folder with content" in error) == (2, True), error
    assert sorted(path.name for path in (place / "decoder").iterdir()) == before


def test_sigterm_saves_and_ends_with_0(place: Path) -> None:
    words = ["learn", "bank", "--task", "second", "--data", "cats.jsonl", "--epochs", "2000", "--batch-size", "2"]
    command = [sys.executable, "-m", "share_jax.cli", *words, "--progress"]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    ) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if line.startswith("update"))
        run.send_signal(signal.SIGTERM)
        rest = run.stderr.read()
    assert run.returncode == 0, rest
    assert "stopped: saved at step" in rest
    assert "Traceback" not in rest


def test_an_interrupt_says_how_to_go_on(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(language, "learn", interrupted)
    code, error = said(capsys, "learn", "bank", "--task", "second", "--data", "cats.jsonl")
    assert (code, error) == (130, "share-jax: stopped; run the command again to go on from the last save")


# ---- prompts

TURN = {"role": "user", "content": "the cat"}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"messages": []}, "an empty list"),
        ({"messages": ["hi"]}, "message 1: hi"),
        ({"messages": [{"role": "user"}]}, "message 1"),
        ({"messages": [{"role": "user", "content": 5}]}, "'content': 5"),
        ({"messages": [TURN, {"role": "assistant", "content": "sat"}]}, "a chat that ends with the assistant"),
        ({"prompt": ""}, "an empty 'prompt'"),
        ('{"prompt": "\\ud800"}', "half a surrogate pair"),
        ('{"prompt": "the cat", "score": NaN}', "got NaN"),
        ({"prompt": "the cat", "task": "dogs"}, "task of prompts.jsonl line 3: got 'dogs'"),
        ({"prompt": "the cat " * 400}, "prompts.jsonl line 3: got"),
    ],
)
def test_a_bad_prompt_is_named_by_its_line(
    place: Path, capsys: pytest.CaptureFixture, record: object, told: str
) -> None:
    write(place / "prompts.jsonl", {"prompt": "the cat"}, "", record)
    code, error = said(capsys, "generate", "bank", "--file", "prompts.jsonl", "--task", "cats", "--max-tokens", "2")
    assert (code, told in error, "line 3" in error) == (2, True, True), error


def test_a_chat_that_the_template_refuses_is_named_by_its_line(place: Path, capsys: pytest.CaptureFixture) -> None:
    """The model has no template at all."""
    write(place / "chats.jsonl", "", {"messages": [TURN, {"role": "assistant", "content": "sat"}]})
    code, error = said(capsys, "learn", "bank", "--task", "b", "--data", "chats.jsonl")
    assert (code, error.startswith("share-jax: chats.jsonl line 2: ")) == (2, True), error
    code, error = said(capsys, "learn", "bank", "--task", "b", "--data", "cats.jsonl", "--eval", "chats.jsonl")
    assert (code, error.startswith("share-jax: chats.jsonl line 2: ")) == (2, True), error
    write(place / "asked.jsonl", {"messages": [TURN]})
    code, error = said(capsys, "generate", "bank", "--task", "cats", "--file", "asked.jsonl")
    assert (code, error.startswith("share-jax: asked.jsonl line 1: ")) == (2, True), error


@pytest.mark.parametrize(("out", "told"), [("nodir/out.jsonl", "no parent folder"), ("bank", "a folder")])
def test_a_bad_place_is_told_before_anything_is_read(
    place: Path, capsys: pytest.CaptureFixture, out: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "open_language_bank", lambda *words: pytest.fail("the model was loaded"))
    code, error = said(capsys, "generate", "bank", "--prompt", "x", "--task", "cats", "-o", out)
    assert (code, told in error) == (2, True)


@pytest.mark.parametrize(
    "out", ["bank/language_model.json", "bank/new.jsonl", "decoder/config.json", "asked.jsonl", "old.jsonl"]
)
def test_nothing_that_is_read_is_written_over(
    place: Path, capsys: pytest.CaptureFixture, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "open_language_bank", lambda *words: pytest.fail("the model was loaded"))
    write(place / "asked.jsonl", {"prompt": "the cat", "task": "cats"})
    write(place / "old.jsonl", {"precious": True})
    before = (place / out).read_bytes() if (place / out).exists() else None
    words = ("generate", "bank", "--file", "asked.jsonl", "-o", out)
    code, error = said(capsys, *words)
    told = "pass --overwrite" if out == "old.jsonl" else "which is read"
    assert (code, told in error) == (2, True), error
    if out != "old.jsonl":
        assert said(capsys, *words, "--overwrite")[0] == 2
    assert ((place / out).read_bytes() if (place / out).exists() else None) == before


def test_lines_keep_what_they_have(place: Path, capsys: pytest.CaptureFixture) -> None:
    odd = '{"prompt": "the cat", "task": null, "note": "\\ud800", "completion": "sat"}'
    write(place / "prompts.jsonl", odd)
    words = ("generate", "bank", "--file", "prompts.jsonl", "--task", "cats", "--max-tokens", "2", "-o", "out.jsonl")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": "out.jsonl", "completions": 1, "cut": 1}
    line = json.loads((place / "out.jsonl").read_text())
    assert (line["note"], line["reference"], line["task"]) == ("\ud800", "sat", "cats")
    assert isinstance(line["completion"], str)
    again = ("generate", "bank", "--file", "out.jsonl", "--max-tokens", "2", "-o", "again.jsonl")
    assert main(list(again)) == 0
    assert json.loads((place / "again.jsonl").read_text()) == line  # the reference is not the first run's completion


def test_completions_that_were_cut_are_told(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Completion((3, 4), "sat on", stopped=False, task=0), Completion((3,), "sat", stopped=True, task=0)]
    monkeypatch.setattr(language.LanguageBank, "generate", lambda *words, **more: made)
    write(place / "asked.jsonl", *[{"prompt": "the cat", "task": "cats"}] * 2)
    assert main(["generate", "bank", "--file", "asked.jsonl", "--max-tokens", "2"]) == 0
    told = capsys.readouterr()
    assert [json.loads(line)["stopped"] for line in told.out.splitlines()] == [False, True]
    assert told.err == "share-jax: note: 1 of 2 completions were cut at --max-tokens 2\n"
    made.pop(0)
    assert said(capsys, "generate", "bank", "--task", "cats", "--prompt", "the cat") == (0, "")


def test_a_file_may_be_standard_input(place: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    words = ["generate", "bank", "--file", "-", "--task", "cats", "--max-tokens", "2"]
    ended = subprocess.run(
        [sys.executable, "-m", "share_jax.cli", *words], input='{"prompt": "the cat"}\n', text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(root)}, check=True,
    )  # fmt: skip
    assert json.loads(ended.stdout)["prompt"] == "the cat"


def test_draws_need_a_temperature(place: Path, capsys: pytest.CaptureFixture) -> None:
    for option, value in (("--top-k", 3), ("--top-p", 0.5)):
        code, error = said(capsys, "generate", "bank", "--prompt", "the cat", "--task", "cats", option, value)
        assert (code, "pass --temperature" in error) == (2, True)


# ---- what is told


def test_bounds_and_cuts_are_told(place: Path, capsys: pytest.CaptureFixture) -> None:
    settings = language.LanguageSettings(str(place / "decoder"), "share", 2, num_basis=6, first_layer=1, max_length=8)
    opened = language.open_language_bank("shared", settings=settings)
    for task in ("a", "b"):
        done = language.learn(opened, task, EXAMPLES, SHORT)
        opened = done.opened
    assert main(["tasks", "shared", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]
    for task, bound in done.bounds.items():
        np.testing.assert_allclose(told[task]["error_bound"], bound, rtol=1e-6)
    assert main(["tasks", "shared"]) == 0
    assert "error at most" in capsys.readouterr().out
    write(place / "long.jsonl", {"prompt": "the cat sat on " * 8, "completion": "the dog"})
    assert main(["evaluate", "shared", "--data", "long.jsonl", "--json"]) == 0
    assert {each["cut"] for each in json.loads(capsys.readouterr().out)["tasks"].values()} == {1}
    assert main(["tasks", "bank", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["cats"]["error_bound"] is None


def test_a_bank_without_tasks_is_not_evaluated(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "new").mkdir()
    (place / "new" / "language_model.json").write_text((place / "bank" / "language_model.json").read_text())
    code, error = said(capsys, "evaluate", "new", "--data", "cats.jsonl")
    assert (code, "no tasks" in error) == (2, True)


def test_imported_tasks_may_be_named(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert said(capsys, "export", "bank", "cats", "-o", "cats")[0] == 0
    code, error = said(capsys, "import", "bank", "cats")
    assert (code, "--name" in error) == (2, True)
    assert said(capsys, "import", "bank", "cats", "--name", "lions")[0] == 0
    capsys.readouterr()
    assert main(["tasks", "bank"]) == 0
    told = capsys.readouterr().out
    assert "lions" in told
    assert "None" not in told


def test_another_model_than_the_banks_is_told_as_such(place: Path, capsys: pytest.CaptureFixture) -> None:
    settings = json.loads((place / "bank" / "language_model.json").read_text())
    (place / "bank" / "language_model.json").write_text(json.dumps({**settings, "first_layer": 30}))
    code, error = said(capsys, "generate", "bank", "--prompt", "the cat", "--task", "cats")
    assert (code, "expected the bank's model" in error, "--first-layer" in error) == (2, True, False)
