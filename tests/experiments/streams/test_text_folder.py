"""Texts of a user's own, and what is told of rows that cannot be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.run_config import parse
from experiments.streams.text_folder import text_folder
from share_jax.errors import FormatError, InputError


def rows(labels: str, count: int) -> str:
    return "".join(f'"text {number}, of {label}",{label}\n' for label in labels.split() for number in range(count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks, one with a test of its own."""
    (tmp_path / "colours.csv").write_text("text,label\n" + rows("red blue", 5))
    lines = [{"text": f"{name} {number}", "label": number % 2} for name in ("one", "two") for number in range(4)]
    (tmp_path / "numbers.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / "numbers.test.csv").write_text("label,text\n1,three\n0,four\n")
    return tmp_path


def refused(folder: Path) -> list[str]:
    with pytest.raises(FormatError) as caught:
        text_folder(folder)
    return str(caught.value).split("\n  ")


def test_a_file_is_a_task(folder: Path) -> None:
    colours, numbers = text_folder(folder)
    assert (colours.name, colours.classes) == ("colours", ("blue", "red"))
    assert (numbers.name, numbers.classes) == ("numbers", ("0", "1"))
    assert numbers.test_texts == ("three", "four")
    assert numbers.test_labels.tolist() == [1, 0]
    assert len(numbers.train_texts) == 8


def test_a_fifth_of_each_class_is_held_out_by_the_seed(folder: Path) -> None:
    first, again, other = (text_folder(folder, seed=seed)[0] for seed in (0, 0, 3))
    assert sorted(first.test_labels.tolist()) == [0, 1]
    assert set(first.train_texts) | set(first.test_texts) == {
        f"text {n}, of {c}" for n in range(5) for c in ("red", "blue")
    }
    assert not set(first.train_texts) & set(first.test_texts)
    assert first.test_texts == again.test_texts
    assert first.test_texts != other.test_texts
    few = text_folder(folder, train_per_task=4)[0]
    assert np.bincount(few.train_labels).tolist() == [2, 2]


def test_the_order_is_by_name_or_as_it_is_written(folder: Path) -> None:
    (folder / "stream.json").write_text('{"tasks": ["numbers", "colours"]}')
    assert [task.name for task in text_folder(folder)] == ["numbers", "colours"]
    (folder / "stream.json").write_text('{"tasks": ["numbers"]}')
    with pytest.raises(FormatError, match=r"stream.json: got \['numbers'\], expected .*each of colours, numbers once"):
        text_folder(folder)
    (folder / "stream.json").write_text("{}")
    with pytest.raises(FormatError, match="no 'tasks' in it"):
        text_folder(folder)


def test_pairs_of_texts(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("text,text_b,label\n" + "".join(f"a{n},b{n},{n % 2}\n" for n in range(10)))
    (task,) = text_folder(tmp_path)
    assert set(task.train_texts) | set(task.test_texts) == {(f"a{n}", f"b{n}") for n in range(10)}
    with (tmp_path / "pairs.csv").open("a") as file:
        file.write("a,,0\n")
    assert refused(tmp_path)[1] == (
        "pairs.csv line 12: got text_b '', expected a text that is not empty; add a text_b, or delete the row"
    )


def test_every_bad_row_is_told_with_its_line(folder: Path) -> None:
    (folder / "colours.csv").write_text('text,label\nok,red\n,red\n"two\nlines",\nthree,cells,here\nok,blue\n')
    (folder / "numbers.jsonl").write_text(
        '{"text": "a", "label": 0}\nno json\n[1]\n{"text": 3, "label": 0}\n{"text": "b"}\n'
    )
    first, *listed = refused(folder)
    assert first == f"--data-folder {folder}: got 8 bad rows, expected none; fix what is listed"
    assert [line.split(", expected")[0] for line in listed[:3]] == [
        "colours.csv line 3: got text ''",
        "colours.csv line 4: got label ''",
        "colours.csv line 6: got 3 cells",
    ]
    assert listed[3].startswith("numbers.jsonl line 2: got Expecting value")
    assert listed[3].endswith('; write one object per line, such as {"text": "...", "label": "..."}')
    assert [line.split(", expected")[0] for line in listed[4:7]] == [
        "numbers.jsonl line 3: got list",
        "numbers.jsonl line 4: got text 3",
        "numbers.jsonl line 5: got label none",
    ]
    assert listed[7].startswith("numbers.test.csv line 2: got label '1', expected a label of numbers.jsonl; add rows")


def test_ten_bad_rows_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "x,\n" * 13)
    lines = refused(tmp_path)
    assert lines[0].endswith("got 13 bad rows, expected none; fix what is listed")
    assert len(lines) == 12
    assert lines[-1] == "and 3 more"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"words,label\na,b\n",
            "line 1: got columns words, label, expected also text; name the columns",
        ),
        (b"text,label\n\xff,b\n", "line 2: got bytes that are no UTF-8, expected UTF-8 text; save the file as UTF-8"),
        (b'text,label\na,b\n"c,d\n', "line 3: got unexpected end of data, expected a row of CSV; close the quotes"),
        (b"", "line 1: got no rows, expected a row for each example; add rows, or delete the file"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert refused(tmp_path)[1].startswith(f"a.csv {told}")


def test_a_folder_without_a_stream(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data-folder: got none, expected a folder with one CSV or JSONL"):
        text_folder(None)
    with pytest.raises(InputError, match=r"got no such file, .*put FOLDER/TASK.csv"):
        text_folder(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nx,0\ny,1\n")
    with pytest.raises(InputError, match=r"got none, expected at least one, .*; add a\.test\.csv"):
        text_folder(tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(InputError, match=r"task 'a': got a\.csv and a\.jsonl, expected one file"):
        text_folder(tmp_path)
    (tmp_path / "a.jsonl").rename(tmp_path / "b.test.jsonl")
    with pytest.raises(InputError, match=r"training file of task 'b': got none, .*; add b\.csv or b\.jsonl"):
        text_folder(tmp_path)


def test_texts_run_from_the_command_line_as_long_as_the_longest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens are counted by a tokenizer of words; the model is not made."""
    from experiments.config import text_stream, texts

    def words(folder: Path, max_length: int) -> Any:
        def encode(texts: Any) -> tuple[np.ndarray, np.ndarray]:
            lengths = np.array([min(len(text.split()), max_length) for text in texts])
            mask = (np.arange(max_length) < lengths[:, None]).astype(np.int32)
            return mask, mask

        return encode

    monkeypatch.setattr(text_stream, "load_tokenizer", words)
    monkeypatch.setattr(text_stream, "minilm_folder", lambda cache_dir: folder)
    config = parse(["--experiment", "texts", "--data-folder", str(folder), "--max-length", "9"])
    stream = texts.stream(config)
    assert stream.protocol == "task-incremental"
    assert {split.inputs["input_ids"].shape[1] for task in stream.tasks for split in (task.train, task.test)} == {4}


def test_pairs_beside_single_texts_are_refused(folder: Path) -> None:
    (folder / "numbers.test.csv").write_text("label,text,text_b\n1,three,drei\n0,four,vier\n")
    (line,) = refused(folder)[1:]
    assert line.startswith("numbers.test.csv line 2: got pairs, expected single texts, as numbers.jsonl has")


def test_endings_are_read_in_any_case_and_files_that_are_not_read_are_named(folder: Path) -> None:
    (folder / "colours.csv").rename(folder / "colours.CSV")
    assert [task.name for task in text_folder(folder)] == ["colours", "numbers"]
    (folder / "notes.md").write_text("what this is")
    assert len(text_folder(folder)) == 2
    (folder / "more.tsv").write_text("text\tlabel\n")
    with pytest.raises(InputError, match=r"more\.tsv: got a file \.tsv, expected \.csv or \.jsonl"):
        text_folder(folder)


def test_a_limit_that_leaves_a_class_without_examples_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="training examples of a task: got 1, expected at least 2"):
        text_folder(folder, train_per_task=1)


def test_long_texts_and_half_letters(folder: Path) -> None:
    (folder / "colours.csv").write_text("text,label\n" + rows("red blue", 5) + f'"{"long " * 40_000}",red\n')
    assert max(map(len, text_folder(folder)[0].train_texts + text_folder(folder)[0].test_texts)) > 150_000
    (folder / "numbers.jsonl").write_text('{"text": "a \\ud83d", "label": 1}\n' + "[" * 100_000 + "\n")
    first, second = refused(folder)[1:3]
    assert first.startswith("numbers.jsonl line 1: got text with half a letter")
    assert "line 2: got" in second
