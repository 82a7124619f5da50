"""A training that failed or was broken off: what it leaves of its settings, and what is told of it when it ends."""

import json
from pathlib import Path

import pytest
from small_bank import EXAMPLES, SETTINGS, said

from share_jax import language
from share_jax.checkpoint.checkpoint import open_checkpoint
from share_jax.errors import FormatError
from share_jax.language.training import Training
from share_jax.runtime.preemption import Preempted


class StopAfter:
    """Breaks a training off after so many updates."""

    def __init__(self, count: int) -> None:
        self._left = count

    def skip(self, steps: int, /) -> None:
        """Counts nothing."""

    def saving(self) -> None:
        """Stops nothing."""

    def update(self, steps: int, loss: object, /) -> None:
        self._left -= steps
        if not self._left:
            raise Preempted


def test_what_is_told_of_a_training_is_that_of_one_never_broken_off(place: Path) -> None:
    """The updates whose losses count lie on both sides of the break."""
    training = Training(epochs=10, batch_size=1, save_every=19)
    whole = language.learn(language.open_language_bank("bank"), "dogs", EXAMPLES, training, evaluation=EXAMPLES)
    opened = language.open_language_bank("new", "decoder", SETTINGS)
    opened = language.learn(opened, "cats", EXAMPLES, Training(epochs=1, batch_size=2)).opened
    with pytest.raises(Preempted):
        language.learn(opened, "dogs", EXAMPLES, training, progress=StopAfter(39))
    assert open_checkpoint("new").manifest.inflight["info"]["step"] == 38  # pyright: ignore[reportOptionalSubscript]
    again = language.open_language_bank("new")
    done = language.learn(again, "dogs", EXAMPLES, training, evaluation=EXAMPLES)
    assert done.loss == whole.loss
    assert open_checkpoint("new").info("dogs") == open_checkpoint("bank").info("dogs")


WORDS = ("learn", "new", "--task", "a", "--data", "cats.jsonl", "--batch-size", "2")
FIRST = ("--model", "decoder", "--first-layer", "1", "--max-length", "32", "--rank", "2")


def test_a_training_that_diverges_fixes_no_settings(place: Path, capsys: pytest.CaptureFixture) -> None:
    code, error = said(capsys, *WORDS, *FIRST, "--epochs", "2", "--learning-rate", "1e30")
    assert (code, "expected finite numbers" in error) == (2, True), error
    assert said(capsys, *WORDS, "--epochs", "1", "--rank", "4", "--method", "separate")[0] == 0
    found = json.loads((place / "new" / "language_model.json").read_text())
    assert (found["rank"], found["method"], found["first_layer"]) == (4, "separate", 1)
    code, error = said(capsys, "learn", "new", "--task", "b", "--data", "cats.jsonl", "--rank", "2", "--restart")
    assert (code, "--rank: got 2, expected 4, as the bank's tasks have" in error) == (2, True), error


def test_targets_that_cannot_be_exported_are_noted_before_the_training(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    targets = ("--targets", "embed/embedding", "--targets", "layer_1/.*/kernel")
    new = ("--model", "decoder", "--rank", "2", "--epochs", "1")
    code, note = said(capsys, *WORDS, *new, *targets)
    assert (code, "note: the bank adapts embed/embedding, which is no linear layer" in note) == (0, True), note
    assert said(capsys, "learn", "bank", "--task", "b", "--data", "cats.jsonl", "--epochs", "1") == (0, "")
    assert said(capsys, "export", "new", "a", "-o", "out")[0] == 2


def test_a_training_that_was_broken_off_fixes_them_until_it_is_given_up(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    opened = language.open_language_bank("new", "decoder", SETTINGS)
    with pytest.raises(Preempted):
        language.learn(opened, "a", EXAMPLES, Training(epochs=2, batch_size=2, save_every=1), progress=StopAfter(2))
    code, error = said(capsys, *WORDS, "--rank", "4")
    assert (code, "as a training that was broken off has" in error, "--restart" in error) == (2, True, True), error
    other = language.LanguageSettings("decoder", rank=4, first_layer=1)
    with pytest.raises(FormatError, match="method"):
        language.learn(language.open_language_bank("new", settings=other), "a", EXAMPLES, Training(epochs=1))
    assert said(capsys, *WORDS, "--rank", "4", "--epochs", "1", "--restart")[0] == 0
    assert language.read_settings("new").rank == 4
    assert open_checkpoint("new").manifest.inflight is None
