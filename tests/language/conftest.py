"""A language model's bank of one task, made once for each file, and a copy of it for each test."""

import subprocess
from pathlib import Path

import pytest
from pretrained_folders import pretrained_folder
from small_bank import EXAMPLES, SETTINGS, SHORT, write

from share_jax import language


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a bank of one task, and its data."""
    folder = tmp_path_factory.mktemp("odd")
    pretrained_folder("decoder", folder)
    opened = language.open_language_bank(folder / "bank", folder / "decoder", SETTINGS)
    language.learn(opened, "cats", EXAMPLES, SHORT)
    write(folder / "cats.jsonl", *({"prompt": each.prompt, "completion": each.completion} for each in EXAMPLES))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with copies of the bank and of its data, the model by a link."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["cp", "-r", str(made / "bank"), str(made / "cats.jsonl"), str(tmp_path)], check=True)
    (tmp_path / "decoder").symlink_to(made / "decoder")
    return tmp_path
