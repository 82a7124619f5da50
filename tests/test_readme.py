"""The README: short, its code runs, and what it names is there."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from adapter_makers import factors, write_peft
from pages import PAGES, ROOT, block, code_lines
from pretrained_folders import pretrained_folder

from share_jax.cli.main import main

README = PAGES["README.md"]


def test_it_is_at_most_180_lines_with_its_snippets_and_the_two_commands_on_top() -> None:
    lines = README.splitlines()
    assert len(lines) <= 180
    assert max(map(len, lines)) <= 400
    assert [name for name, _, _ in re.findall(r"<!-- ([\w ]+) -->\n```(\w+)\n(.*?)```", README, re.DOTALL)] == [
        "unmodified model",
        "nnx model",
        "pretrained bert",
        "language bank",
        "compress",
    ]
    top = "\n".join(lines[:15])
    assert re.search(r"^make run ", top, re.MULTILINE)
    assert re.search(r"^make test ", top, re.MULTILINE)


def in_nnx(linen: str, nnx: str) -> str:
    """The Linen block, with the NNX lines in the place of those that make `model`, `base` and `adapted`."""
    lines = linen.splitlines(keepends=True)
    (first,) = [place for place, line in enumerate(lines) if line.startswith("model = ")]
    (last,) = [place for place, line in enumerate(lines) if line.startswith("adapted = ")]
    return "".join([*lines[:first], nnx, *lines[last + 1 :]])


@pytest.mark.parametrize("flavour", ["linen", "nnx"])
def test_the_model_of_ones_own_takes_15_lines_and_learns_both_tasks(flavour: str) -> None:
    source = block("README.md", "unmodified model")
    if flavour == "nnx":
        source = in_nnx(source, block("README.md", "nnx model"))
    assert code_lines(source) <= 15
    scope: dict = {}
    exec(compile(source, "README", "exec"), scope)
    learner, bank, x = scope["learner"], scope["bank"], scope["x"]
    for task, column in (("first", 0), ("second", 1)):
        predicted = np.asarray(learner.predict(bank, task, x)).argmax(-1)
        assert np.mean(predicted == np.asarray(x[:, column] > 0)) > 0.9
    assert np.isfinite(np.asarray(scope["logits"])).all()
    assert scope["logits"].shape == (30, 2)


def words_of(name: str) -> list[list[str]]:
    """The commands of a block, without share-jax itself."""
    lines = [shlex.split(line, comments=True) for line in block("README.md", name).splitlines()]
    assert len(lines) < 20
    assert all(words[0] == "share-jax" for words in lines)
    return [words[1:] for words in lines]


@pytest.mark.slow
def test_the_commands_of_a_language_model_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On a tiny model, with few updates, and answers as short as it takes them."""
    monkeypatch.chdir(tmp_path)
    pretrained_folder("decoder", tmp_path).rename("SmolLM2-135M-Instruct.gguf")
    example = json.dumps({"prompt": "the cat sat", "completion": "SELECT name"})
    for name in ("sql", "sql-test", "python", "support"):
        Path(f"{name}.jsonl").write_text(f"{example}\n{example}\n")
    asked = [json.dumps({"prompt": "the dog", "task": task}) for task in ("sql", "support", "python")]
    Path("prompts.jsonl").write_text("\n".join(asked))
    small = {"learn": ["--epochs", "2", "--batch-size", "2"], "generate": ["--max-tokens", "4"]}
    for words in words_of("language bank"):
        assert main([*words, *small.get(words[0], [])]) == 0, capsys.readouterr().err
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [answer["task"] for answer in answers] == ["sql", "support", "python"]
    assert all("completion" in answer for answer in answers)
    assert {path.name for path in Path("adapters").iterdir()} == {"sql", "python", "support"}
    assert "all 2 kept every bit" in capsys.readouterr().out


def test_the_commands_that_compress_a_folder_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On three small adapters, whose common columns the fourth shares too."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        write_peft(f"adapters/a{seed}", factors(seed))
    write_peft("new_adapter", factors(3))
    for words in words_of("compress"):
        each = [str(path) for path in sorted(Path("adapters").iterdir())]
        given = [part for word in words for part in (each if word == "adapters/*" else [word])]
        assert main(given) == 0, capsys.readouterr().err
    assert {path.name for path in Path("exported").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


def test_what_the_readme_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for place in re.findall(r'(?:\]\(|src=")([^)"#]+)', README):
        assert (ROOT / place).exists(), place
    for name in re.findall(r"`([\w]+\.ipynb)`", README):
        assert (ROOT / "colab" / name).exists()
