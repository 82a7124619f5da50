"""Odd numbers, letters and times: what a command says of them, and that it loses nothing."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_bank import EXAMPLES, said, write

from share_jax import language
from share_jax.checkpoint import saved_bank
from share_jax.cli.main import main
from share_jax.errors import InputError
from share_jax.language.training import Training
from share_jax.models.chat_template import render


def test_prompts_are_checked_before_they_are_routed(place: Path, capsys: pytest.CaptureFixture) -> None:
    write(place / "asked.jsonl", {"prompt": "the cat"}, {"prompt": "the cat " * 200})
    code, error = said(capsys, "generate", "bank", "--file", "asked.jsonl", "--route")
    assert (code, "asked.jsonl line 2: got" in error) == (2, True)
    assert "at most" in error


@pytest.mark.parametrize("seed", ["-1", str(2**70)])
def test_seeds_out_of_range_are_one_line(place: Path, capsys: pytest.CaptureFixture, seed: str) -> None:
    learning = ("learn", "bank", "--task", "dogs", "--data", "cats.jsonl")
    for words in (learning, ("generate", "bank", "--task", "cats", "--prompt", "a", "--temperature", "1")):
        code, error = said(capsys, *words, "--seed", seed)
        assert (code, "seed" in error, "internal" in error) == (2, True, False)
    with pytest.raises(InputError, match="seed: got"):
        Training(seed=int(seed))


def test_numbers_past_those_of_json_are_refused(place: Path, capsys: pytest.CaptureFixture) -> None:
    write(place / "asked.jsonl", '{"prompt": "the cat", "task": "cats", "score": 1e999}')
    code, error = said(capsys, "generate", "bank", "--file", "asked.jsonl")
    assert (code, "line 1: got 1e999" in error) == (2, True)


def test_completions_are_utf8_whatever_the_terminal_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place / "asked.jsonl", {"prompt": "the cat", "task": "cats", "note": "猫"})
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1", write_through=True))
    assert main(["generate", "bank", "--file", "asked.jsonl", "--max-tokens", "2"]) == 0
    assert json.loads(written.getvalue().decode("utf-8"))["note"] == "猫"


def test_a_reader_waits_for_a_save_that_it_met(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save between the manifest and the arrays that it named."""
    real, met = saved_bank.opened_for, []

    def meet(*args: object) -> object:
        found = real(*args)  # pyright: ignore[reportArgumentType]
        if not met:
            met.append(found)
            (place / "bank" / found.record("cats")["path"]).rename(place / "bank" / "tasks" / "other")
            text = (place / "bank" / "manifest.json").read_text()
            (place / "bank" / "manifest.json").write_text(text + "\n")
            monkeypatch.setattr(saved_bank, "opened_for", again)
        return found

    def again(*args: object) -> object:
        found = real(*args)  # pyright: ignore[reportArgumentType]
        (place / "bank" / "tasks" / "other").rename(place / "bank" / found.record("cats")["path"])
        return found

    monkeypatch.setattr(saved_bank, "opened_for", meet)
    assert language.open_language_bank("bank").bank.names == ("cats",)
    assert met


@pytest.mark.parametrize(
    ("field", "value"),
    [("targets", [3]), ("rank", True), ("alpha", "16"), ("max_length", None), ("tokens", {"tokenizer": 3}),
     ("tokens", ["a"]), ("model", 3)],
)  # fmt: skip
def test_settings_of_another_kind_are_one_line(
    place: Path, capsys: pytest.CaptureFixture, field: str, value: object
) -> None:
    file = place / "bank" / "language_model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    code, error = said(capsys, "tasks", "bank")
    assert (code, f"language_model.json: got {field}: {json.dumps(value)}, expected" in error) == (2, True), error


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: language.LanguageSettings("m", rank="8"), "rank: got '8', expected a whole number"),
        (lambda: language.LanguageSettings("m", rank=True), "rank: got True"),
        (lambda: language.LanguageSettings("m", alpha="x"), "alpha: got 'x', expected a finite number"),
        (lambda: language.LanguageSettings("m", targets=(3,)), "targets: got 3"),
        (lambda: Training(learning_rate="x"), "learning_rate: got 'x'"),
        (lambda: Training(epochs=1.5), "epochs: got 1.5"),
        (lambda: Training(seed="0"), "seed: got '0'"),
    ],
)
def test_what_is_no_number_is_one_line(make: Callable, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()
    assert language.LanguageSettings("m", targets="abc").targets == ("abc",)


def test_examples_of_another_kind_are_one_line(place: Path) -> None:
    opened = language.open_language_bank("bank")
    record: Any = {"prompt": "the cat", "completion": " sat"}
    with pytest.raises(InputError, match="example 1: got a dict, expected an Example or a Chat"):
        language.learn(opened, "dogs", [record])
    with pytest.raises(InputError, match="batch_size: got 0, expected a whole number of at least 1"):
        language.evaluate(opened, "cats", EXAMPLES, batch_size=0)


def test_templates_are_told_one_date_on_any_day() -> None:
    """A training that was broken off goes on with the prompts that it began with."""
    template = "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}"
    assert render(template, [{"role": "user", "content": "Hi"}]) == "26 Jul 2024: Hi"
    today = render(template, [{"role": "user", "content": "Hi"}], strftime_now=lambda form: "today")
    assert today == "today: Hi"
