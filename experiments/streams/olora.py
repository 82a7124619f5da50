"""olora: the text sets of the O-LoRA benchmark, in its published orders, with its prompts.

Source: Wang et al. 2023, Orthogonal Subspace Learning for Language Model Continual Learning (arXiv 2310.14152). The
authors' repository keeps its sets under the MIT licence; each has its own source and terms.

    FOLDER/NLI/MNLI/labels.json                  ["neutral", "entailment", "contradiction"]
    FOLDER/NLI/MNLI/train.json, test.json        [{"sentence": "...", "label": "neutral"}, ...]

Orders 1 to 3 are the standard benchmark, 4 to 6 the long one. Sets that the folder lacks are left out, and named. A
prompt has the kind of task, the set, what is asked and the options, as the authors' has; the completion is a blank and
the label, which follows "Answer:" in a decoder's tokens. Rows with the label "-", which MNLI has where its annotators
disagree, are left out.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.notify import to_stderr
from experiments.streams.fitting import fitted
from experiments.streams.sample import balanced
from experiments.streams.text_tasks import CompletionTask
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.untrusted import shown
from share_jax.text.examples import Example
from share_jax.train.token_rows import Tokenizer

_LONG = (
    "MNLI CB WiC COPA QQP BoolQA RTE IMDB yelp amazon SST-2 dbpedia agnews MultiRC yahoo",
    "MultiRC BoolQA WiC MNLI CB COPA QQP RTE IMDB SST-2 dbpedia agnews yelp amazon yahoo",
    "yelp amazon MNLI CB COPA QQP RTE IMDB SST-2 dbpedia agnews yahoo MultiRC BoolQA WiC",
)
_STANDARD = ("dbpedia amazon yahoo agnews", "dbpedia amazon agnews yahoo", "yahoo amazon agnews dbpedia")

ORDERS: Mapping[int, tuple[str, ...]] = {
    number: tuple(names.split()) for number, names in enumerate((*_STANDARD, *_LONG), start=1)
}
"""The published orders, by their numbers; names as of the folders."""

_CHOOSE = "Choose one from the option."

QUESTIONS: Mapping[str, str] = {
    "NLI": f'What is the logical relationship between the "sentence 1" and the "sentence 2"? {_CHOOSE}',
    "QQP": f'Whether the "first sentence" and the "second sentence" have the same meaning? {_CHOOSE}',
    "SC": f"What is the sentiment of the following paragraph? {_CHOOSE}",
    "TC": f"What is the topic of the following paragraph? {_CHOOSE}",
    "BoolQA": f"According to the following passage, is the question true or false? {_CHOOSE}",
    "MultiRC": f"According to the following passage and question, is the candidate answer true or false? {_CHOOSE}",
    "WiC": f"Given a word and two sentences, whether the word is used with the same sense in both sentence? {_CHOOSE}",
    "COPA": "",
}
"""What is asked, by the kind of task, in the benchmark's own words; COPA's rows have a question and options inside."""

UNDECIDED = "-"

TRAIN_PER_TASK, TEST_PER_TASK = 500, 500

_SHAPE = "a folder in O-LoRA's layout, KIND/SET/labels.json with train.json and test.json beside it"


def olora(
    folder: str | os.PathLike[str] | None,
    order: int = 4,
    *,
    seed: int = 0,
    train_per_task: int | None = TRAIN_PER_TASK,
    test_per_task: int | None = TEST_PER_TASK,
    dev_per_task: int = 0,
    tokenizer: Tokenizer | None = None,
    max_length: int = 0,
    notify: Callable[[str], None] = to_stderr,
) -> tuple[CompletionTask, ...]:
    """The tasks of one order that the folder has.

    Args:
        folder: see the module.
        order: 1 to 6.
        seed: of the rows that are drawn.
        train_per_task: most training rows, shared equally among the labels; None is all.
        test_per_task: most test rows, drawn from all; None is all.
        dev_per_task: rows of the training file, at most a fifth of it, that are held out as the test set "dev".
        tokenizer: of the decoder; a sentence that is too long for it is cut at its end, since the question stands
            before it. None cuts nothing.
        max_length: the most tokens of a prompt and its answer.
        notify: is told which sets of the order are not there.

    Raises:
        InputError: an unknown order, a limit out of range, no folder, or none of the order's sets in it.
        FormatError: a file is missing or is not what it should be.
    """
    if order not in ORDERS:
        raise InputError(message("order", got=order, expected="1 to 6", fix="pass order=4"))
    for name, limit, least in (("train", train_per_task, 1), ("test", test_per_task, 1), ("dev", dev_per_task, 0)):
        if limit is not None and limit < least:
            raise InputError(message(f"{name} rows", got=limit, expected=f"at least {least}", fix="pass 500"))
    there = sets_of(folder)
    names = [name for name in ORDERS[order] if name in there]
    if not names:
        raise InputError(message(str(folder), got="no set of the order", expected=_SHAPE, fix="pass such a folder"))
    if missing := [name for name in ORDERS[order] if name not in there]:
        notify(f"order {order} without {', '.join(missing)}: not in {folder}")
    limits = (train_per_task, test_per_task, dev_per_task)
    places = {name: place for place, name in enumerate(ORDERS[4])}
    return tuple(_task(there[name], [seed, places[name]], limits, tokenizer, max_length) for name in names)


def sets_of(folder: str | os.PathLike[str] | None) -> dict[str, Path]:
    """The folders of the benchmark's sets that are there, by name.

    Raises:
        InputError: there is no folder.
    """
    if folder is None or not Path(folder).is_dir():
        got, fix = "none" if folder is None else f"{folder}, which is no folder", "pass --data-folder FOLDER"
        raise InputError(message("--data-folder", got=got, expected=_SHAPE, fix=fix))
    found = [path for kind in sorted(QUESTIONS) for path in sorted(Path(folder, kind).glob("*")) if path.is_dir()]
    return {path.name: path for path in found if path.name in ORDERS[4]}


def prompt_of(kind: str, name: str, labels: Sequence[str], sentence: str) -> str:
    """A row's prompt, up to where the label follows."""
    question = QUESTIONS[kind]
    asked = f"{question}\nOption: {', '.join(labels)}\n" if question else ""
    return f"Task:{kind}\nDataset:{name}\n{asked}{sentence.strip()}\nAnswer:"


def _task(
    folder: Path,
    key: list[int],
    limits: tuple[int | None, int | None, int],
    tokenizer: Tokenizer | None,
    max_length: int,
) -> CompletionTask:
    labels = _labels(folder / "labels.json")
    prompt = partial(prompt_of, folder.parent.name, folder.name, labels)
    if tokenizer is not None:
        answer = max(map(len, tokenizer.encode_batch([f" {label}" for label in labels], special=False))) + 1
        prompt = partial(fitted, prompt, tokenizer=tokenizer, most=max_length - answer)
    rows, tested = (_rows(folder / name, labels) for name in ("train.json", "test.json"))
    train_limit, test_limit, dev_limit = limits
    order = np.random.default_rng([*key, 0]).permutation(len(rows))
    held = order[: min(dev_limit, len(rows) // 5)]
    rest = np.sort(order[len(held) :])
    numbers = np.array([labels.index(label) for _, label in rows], np.int32)
    most = len(rest) if train_limit is None else train_limit
    own = rest[balanced(numbers[rest], most, np.random.default_rng([*key, 1]))]
    own = np.random.default_rng([*key, 2]).permutation(own)
    chosen = np.random.default_rng([*key, 3]).permutation(len(tested))[:test_limit]

    def examples(source: list[tuple[str, str]], places: np.ndarray) -> tuple[Example, ...]:
        return tuple(Example(prompt(sentence), f" {label}") for sentence, label in (source[place] for place in places))

    tests = {"test": examples(tested, chosen)} | ({"dev": examples(rows, held)} if len(held) else {})
    return CompletionTask(folder.name, examples(rows, own), tests, "option", tuple(f" {label}" for label in labels))


def _labels(path: Path) -> list[str]:
    found = _json(path)
    words = isinstance(found, list) and all(isinstance(label, str) and label.strip() for label in found)
    if not words or len(set(found)) < max(2, len(found)):
        got, expected = shown(found, 80), "a list of two labels or more, each once"
        raise FormatError(message(str(path), got=got, expected=expected, fix="take the file from the benchmark"))
    return found


def _rows(path: Path, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Sentences and labels of one file, those without a decided label left out."""
    found = _json(path)
    fix = "take the file from the benchmark"
    if not isinstance(found, list) or not found:
        got = "an empty list" if found == [] else type(found).__name__
        raise FormatError(message(str(path), got=got, expected="a list of rows", fix=fix))
    rows = []
    for number, row in enumerate(found, start=1):
        what, expected = f"{path} row {number}", '{"sentence": text, "label": one of labels.json}'
        if not isinstance(row, dict) or set(row) != {"sentence", "label"}:
            raise FormatError(message(what, got=shown(row, 80), expected=expected, fix=fix))
        sentence, label = row["sentence"], row["label"]
        if not isinstance(sentence, str) or not sentence.strip():
            raise FormatError(message(what, got=f"sentence {shown(sentence, 40)!r}", expected="a text", fix=fix))
        if label == UNDECIDED and label not in labels:
            continue
        if label not in labels:
            got, expected = f"label {shown(label, 40)!r}", f"one of {', '.join(labels)}"
            raise FormatError(message(what, got=got, expected=expected, fix=fix))
        rows.append((sentence, label))
    return rows


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        got = getattr(error, "strerror", None) or shown(error, 80)
        fix = "take the file from the benchmark"
        raise FormatError(message(str(path), got=got, expected="a JSON list in UTF-8", fix=fix)) from error
