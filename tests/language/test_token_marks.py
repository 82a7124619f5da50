"""A bank opens with the tokenizer, the stop token and the chat template that its tasks were learnt with alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_models import TEMPLATE, byte_level, gguf_tokenizer, write_gguf
from small_bank import said
from tiny_decoders import TINY

from share_jax.language.token_marks import check_token_marks, token_marks
from share_jax.models.pretrained_decoder import load_tokenizer_of


def swapped(folder: Path) -> None:
    """Two tokens have each other's ids."""
    content = json.loads((folder / "tokenizer.json").read_text())
    own = content["model"]["vocab"]
    own["c"], own["d"] = own["d"], own["c"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def unmerged(folder: Path) -> None:
    """The same tokens, of which texts make no use."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))


def ended(folder: Path) -> None:
    """Another token ends texts."""
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 3}))


def templated(folder: Path) -> None:
    """A chat template, where there was none."""
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")


CHANGES = {swapped: "tokenizer", unmerged: "tokenizer", ended: "stop token", templated: "chat template"}


@pytest.mark.parametrize("change", CHANGES)
def test_what_makes_other_tokens_is_refused(place: Path, capsys: pytest.CaptureFixture, change: Callable) -> None:
    shutil.copytree(place / "decoder", place / "other")
    change(place / "other")
    learning = ("learn", "bank", "--task", "dogs", "--data", "cats.jsonl", "--epochs", "1")
    asking = ("generate", "bank", "--task", "cats", "--prompt", "the cat", "--max-tokens", "2")
    for words in (learning, asking, ("evaluate", "bank", "--data", "cats.jsonl")):
        code, error = said(capsys, *words, "--model", "other")
        assert (code, f"got another {CHANGES[change]}, " in error, "pass the folder" in error) == (2, True, True), error


def test_a_bank_without_marks_opens_and_gets_them(place: Path, capsys: pytest.CaptureFixture) -> None:
    """As those of earlier versions."""
    file = place / "bank" / "language_model.json"
    content = json.loads(file.read_text())
    marks = content.pop("tokens")
    assert set(marks) == {"tokenizer", "stop token", "chat template"}
    file.write_text(json.dumps(content))
    assert said(capsys, "learn", "bank", "--task", "dogs", "--data", "cats.jsonl", "--epochs", "1")[0] == 0
    assert json.loads(file.read_text())["tokens"] == marks


def test_a_folder_and_a_gguf_file_of_one_model_are_alike(tmp_path: Path) -> None:
    """Blanks around a template do not count."""
    tokenizer = byte_level()
    write_gguf(tmp_path / "model.gguf", "qwen3", gguf_tokenizer(tokenizer, "gpt-2"))
    shutil.copytree(TINY / "qwen3", tmp_path / "folder")
    tokenizer.save(str(tmp_path / "folder" / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": f"{TEMPLATE}\n"}
    (tmp_path / "folder" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "folder" / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    one, other = (token_marks(load_tokenizer_of(tmp_path / name)) for name in ("model.gguf", "folder"))
    check_token_marks(one, other, "folder")
