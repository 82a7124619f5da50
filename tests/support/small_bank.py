"""What tests of a small language bank learn it from, and what a command says of it."""

import json
from pathlib import Path

import pytest

from share_jax import language
from share_jax.cli.main import main
from share_jax.language.training import Training
from share_jax.text.examples import Example

EXAMPLES = [Example(f"{asked} :", " on the cat") for asked in ("the cat sat", "a dog sat", "the dog sat", "a cat sat")]
SETTINGS = language.LanguageSettings("decoder", rank=2, first_layer=1, max_length=32)
SHORT = Training(epochs=1, batch_size=2)


def write(path: Path, *records: object) -> Path:
    """A JSONL file."""
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records))
    return path


def said(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, str]:
    """The exit status and what stands on stderr, one line at most."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return code, error
