"""A language model's bank of one task, made once and copied for each test, and what a command says of it."""

import json
import subprocess
from pathlib import Path

import pytest
from pretrained_folders import pretrained_folder

from share_jax import language
from share_jax.cli.main import main
from share_jax.language.training import Training
from share_jax.text.examples import Example

EXAMPLES = [Example(f"{asked} :", " on the cat") for asked in ("the cat sat", "a dog sat", "the dog sat", "a cat sat")]
SETTINGS = language.LanguageSettings("decoder", rank=2, first_layer=1, max_length=32)
SHORT = Training(epochs=1, batch_size=2)


def make_bank(folder: Path) -> Path:
    """The folder with a model, a bank of one task, and its data."""
    pretrained_folder("decoder", folder)
    opened = language.open_language_bank(folder / "bank", folder / "decoder", SETTINGS)
    language.learn(opened, "cats", EXAMPLES, SHORT)
    write(folder / "cats.jsonl", *({"prompt": each.prompt, "completion": each.completion} for each in EXAMPLES))
    return folder


def copy_bank(made: Path, into: Path) -> Path:
    """Another folder with copies of the bank and of what it needs, the model by a link."""
    subprocess.run(["cp", "-r", str(made / "bank"), str(made / "cats.jsonl"), str(into)], check=True)
    (into / "decoder").symlink_to(made / "decoder")
    return into


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
