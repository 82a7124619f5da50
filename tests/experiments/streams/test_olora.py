"""O-LoRA's benchmark: orders, prompts, limits, and files that are not what they should be."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments.streams.fitting import fitted
from experiments.streams.olora import ORDERS, olora
from experiments.streams.token_stream import Shots, few_shot, token_tasks
from share_jax.errors import FormatError, InputError

LABELS = {"NLI/MNLI": ["neutral", "entailment"], "SC/amazon": ["negative", "positive"], "COPA/COPA": ["A", "B"]}


def rows(labels: list[str], start: int, count: int) -> list[dict[str, str]]:
    return [{"sentence": f"sentence {start + n}\n", "label": labels[n % 3 == 0]} for n in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, labels in LABELS.items():
        (tmp_path / name).mkdir(parents=True)
        undecided = [{"sentence": "Who knows", "label": "-"}]
        files = {"labels": labels, "train": rows(labels, 0, 30) + undecided, "test": rows(labels, 100, 12)}
        for part, content in files.items():
            (tmp_path / name / f"{part}.json").write_text(json.dumps(content))
    return tmp_path


def test_the_orders_are_those_published() -> None:
    assert ORDERS[1] == ("dbpedia", "amazon", "yahoo", "agnews")
    assert all(len(set(ORDERS[number])) == len(ORDERS[number]) == 15 for number in (4, 5, 6))
    assert len({frozenset(ORDERS[number]) for number in (4, 5, 6)}) == 1
    assert all(set(ORDERS[number]) == set(ORDERS[1]) < set(ORDERS[4]) for number in (2, 3))


def test_what_is_there_comes_in_the_order_and_what_is_missing_is_named(folder: Path) -> None:
    told: list[str] = []
    tasks = olora(folder, 6, notify=told.append)
    assert [task.name for task in tasks] == ["amazon", "MNLI", "COPA"]
    assert [task.name for task in olora(folder, 4, notify=told.append)] == ["MNLI", "COPA", "amazon"]
    assert told[0].startswith("order 6 without yelp, CB, QQP,")
    assert [task.name for task in olora(folder, 1, notify=told.append)] == ["amazon"]


def test_a_prompt_has_the_set_and_its_options(folder: Path) -> None:
    amazon, mnli, copa = olora(folder, 6, notify=lambda line: None)
    assert mnli.options == (" neutral", " entailment")
    assert mnli.score == "option"
    head = 'Task:NLI\nDataset:MNLI\nWhat is the logical relationship between the "sentence 1" and the "sentence 2"? '
    assert mnli.train[0].prompt.startswith(head + "Choose one from the option.\nOption: neutral, entailment\nsentence ")
    assert mnli.train[0].prompt.endswith("\nAnswer:")
    assert copa.train[0].prompt.startswith("Task:COPA\nDataset:COPA\nsentence ")
    assert {example.completion for example in amazon.train} == {" negative", " positive"}
    assert len(amazon.train) == 30


def test_limits_draw_by_the_seed_and_dev_is_held_out(folder: Path) -> None:
    task = olora(folder, 1, train_per_task=10, test_per_task=5, dev_per_task=6, notify=lambda line: None)[0]
    assert sum(example.completion == " positive" for example in task.train) == 5
    assert list(task.test) == ["test", "dev"]
    assert [len(task.test[name]) for name in task.test] == [5, 6]
    whole = olora(folder, 1, train_per_task=None, dev_per_task=100, notify=lambda line: None)[0]
    assert not set(whole.train) & set(whole.test["dev"])
    assert len(whole.train) == 24
    again, other = (
        olora(folder, 1, seed=seed, train_per_task=10, test_per_task=5, dev_per_task=6, notify=lambda line: None)[0]
        for seed in (0, 1)
    )
    assert again == task
    assert other != task


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("train", None, "train.json: got No such file"),
        ("train", "[", "expected a JSON list in UTF-8"),
        ("train", {}, "train.json: got dict, expected a list of rows"),
        ("test", [], "test.json: got an empty list"),
        ("test", [{"sentence": "a"}], "test.json row 1: got {'sentence': 'a'}"),
        ("test", [{"sentence": " ", "label": "A"}], "row 1: got sentence"),
        ("test", [{"sentence": "a", "label": "A"}, {"sentence": "a", "label": "C"}], "row 2: got label 'C'"),
        ("test", [{"sentence": "a", "label": ["A"]}], "row 1: got label"),
        ("labels", ["A"], "labels.json: got ['A'], expected a list of two labels or more"),
        ("labels", ["A", "A"], "each once"),
        ("labels", ["A", 1], "each once"),
        ("labels", [["A"], ["B"]], "each once"),
    ],
)
def test_a_wrong_file_is_named(folder: Path, file: str, content: Any, said: str) -> None:
    path = folder / "COPA" / "COPA" / f"{file}.json"
    path.unlink()
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(FormatError) as caught:
        olora(folder, 4, notify=lambda line: None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_asked_for_is_refused(folder: Path, tmp_path: Path) -> None:
    for wrong in ({"order": 7}, {"train_per_task": 0}, {"test_per_task": 0}, {"dev_per_task": -1}):
        with pytest.raises(InputError, match="expected"):
            olora(folder, **wrong)
    (tmp_path / "empty").mkdir()
    for wrong in (None, tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(InputError, match="O-LoRA's layout"):
            olora(wrong)


def test_long_sentences_lose_the_end_of_their_longest_line(folder: Path) -> None:
    tokenizer: Any = Letters()
    row = {"sentence": f"sentence 1: {'é' * 90}\nsentence 2: short", "label": "neutral"}
    (folder / "NLI/MNLI/train.json").write_text(json.dumps([row]))
    whole, cut = (
        olora(folder, 4, tokenizer=tokenizer, max_length=length, notify=lambda line: None)[0].train[0].prompt
        for length in (400, 250)
    )
    letters = whole.count("é")
    assert letters == 90
    kept = letters - (len(whole) + len(" entailment") + 1 - 250)
    assert cut == whole.replace("é" * 90, "é" * kept)
    assert 0 < kept < 90


def test_a_prompt_without_room_for_its_sentence_keeps_what_is_asked() -> None:
    tokenizer: Any = Letters()
    assert fitted("asked: {}\nAnswer:".format, "one\ntwo", tokenizer, 4).strip() == "asked: \n\nAnswer:"


def test_every_answer_of_a_question_becomes_a_row_of_tokens_the_right_one_first(folder: Path) -> None:
    task = olora(folder, 1, train_per_task=10, test_per_task=5, notify=lambda line: None)[0]
    tokenizer: Any = Letters()
    (made,) = token_tasks([task], tokenizer, 64)
    assert (made.metric, made.test.options, len(made.test), len(made.train)) == ("option_accuracy", 2, 10, 10)
    for place, example in enumerate(task.test["test"]):
        ids = [made.test.labels[2 * place + k] for k in range(2)]
        said = ["".join(map(chr, own[own >= 3])) for own in ids]
        assert said[0] == example.completion
        assert set(said) == set(task.options or ())


def test_a_task_with_few_examples_shows_those_that_it_has(folder: Path) -> None:
    task = olora(folder, 1, train_per_task=2, test_per_task=3, notify=lambda line: None)[0]
    shown = few_shot(task, Shots(count=4, tested=2))
    assert len(shown) == 2
    assert all(shot.prompt.count("Answer:") == 3 for shot in shown)


class Letters:
    """A token for each letter; 1 ends a text."""

    stop = (1,)

    def encode_batch(self, texts: list[str], *, special: bool = True) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))
