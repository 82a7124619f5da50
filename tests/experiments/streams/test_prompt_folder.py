"""A folder of a user's own JSONL files as a stream."""

import json
from pathlib import Path

import pytest

from experiments.streams.prompt_folder import prompt_folder
from share_jax.errors import FormatError, InputError
from share_jax.text.examples import Example


def write(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "prose.jsonl", [{"text": f"text {n}"} for n in range(10)])
    write(tmp_path / "answers.jsonl", [{"prompt": f"{n}?", "completion": f"{n}!"} for n in range(5)])
    write(tmp_path / "answers.test.jsonl", [{"prompt": "9?", "completion": "9!"}])
    return tmp_path


def test_a_file_is_a_task(folder: Path) -> None:
    answers, prose = prompt_folder(folder)
    assert (answers.name, answers.score, len(answers.train)) == ("answers", "exact", 5)
    assert answers.test == {"test": (Example("9?", "9!"),)}
    assert (prose.name, prose.score, len(prose.train), len(prose.test["test"])) == ("prose", "bits_per_byte", 8, 2)
    assert len({*prose.train, *prose.test["test"]}) == 10


def test_order_seed_and_limits(folder: Path) -> None:
    (folder / "stream.json").write_text('{"tasks": ["prose", "answers"]}')
    prose, answers = prompt_folder(folder, train_per_task=3, test_per_task=1)
    assert (prose.name, len(prose.train), len(prose.test["test"])) == ("prose", 3, 1)
    assert len(answers.train) == 3
    assert prompt_folder(folder)[0] == prompt_folder(folder)[0]
    assert prompt_folder(folder)[0].train[:3] == prose.train
    assert prompt_folder(folder, seed=1)[0] != prompt_folder(folder)[0]


@pytest.mark.parametrize("tasks", ['{"prose": 1, "answers": 2}', '"ab"', "[" * 100_000])
def test_an_order_that_is_no_list_is_refused(folder: Path, tasks: str) -> None:
    (folder / "stream.json").write_text(f'{{"tasks": {tasks}}}')
    with pytest.raises(FormatError, match=r"stream\.json: got"):
        prompt_folder(folder)


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "prose.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')
    with pytest.raises(FormatError, match=r"prose\.jsonl line 2: got 'text': 1"):
        prompt_folder(folder)
    (folder / "prose.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match=r"add prose\.test\.jsonl, or another line"):
        prompt_folder(folder)
    (folder / "answers.jsonl").unlink()
    with pytest.raises(InputError, match="training file of task 'answers': got none"):
        prompt_folder(folder)
    (tmp_path / "empty").mkdir()
    for wrong in (None, tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="one JSONL file per task"):
            prompt_folder(wrong)
