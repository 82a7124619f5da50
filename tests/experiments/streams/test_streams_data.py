"""The three streams: sizes known from their sources, fixed order, limits, and damaged input."""

import csv
import json

import numpy as np
import pytest

from experiments.streams.clinc import DOMAINS, clinc150
from experiments.streams.digits import digits5, digits_split
from experiments.streams.newsgroups import newsgroups10, read_tab
from share_jax.errors import FormatError, InputError


@pytest.fixture(scope="module")
def news():
    return newsgroups10()


def test_newsgroups_hold_every_text_once(news):
    assert len(news) == 10
    assert len({group for task in news for group in task.classes}) == 20
    assert sum(len(task.train_texts) for task in news) == 11_293
    assert sum(len(task.test_texts) for task in news) == 7_528
    assert all(task.name == "+".join(task.classes) for task in news)


def test_newsgroups_limits_keep_order_and_choose_subsets(news):
    small = newsgroups10(tasks=3, train_per_task=11, test_per_task=4)
    assert [task.name for task in small] == [task.name for task in news[:3]]
    for few, every in zip(small, news, strict=False):
        assert len(few.train_texts) == 11
        assert set(few.train_texts) <= set(every.train_texts)
        assert np.bincount(few.train_labels).tolist() == [6, 5]
        assert np.bincount(few.test_labels).tolist() == [2, 2]
        label = dict(zip(every.train_texts, every.train_labels, strict=True))
        assert all(label[t] == k for t, k in zip(few.train_texts, few.train_labels, strict=True))
    again = newsgroups10(tasks=3, train_per_task=11, test_per_task=4)
    assert [task.train_texts for task in again] == [task.train_texts for task in small]
    other = newsgroups10(seed=1, tasks=3, train_per_task=11, test_per_task=4)
    assert [task.name for task in other] != [task.name for task in small]


def test_newsgroups_refuse():
    with pytest.raises(InputError, match="tasks: got 11, expected 1 to 10"):
        newsgroups10(tasks=11)
    with pytest.raises(InputError, match="got 1, expected at least 2"):
        newsgroups10(train_per_task=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n\n\n", "expected Category TAB Text"),
        ("Category\tText\nd\tstring\nclass\t\nx\ty\tz\n", "row 4: got 3 fields"),
        (None, "expected UTF-8 text"),
    ],
)
def test_damaged_tab_files_are_one_line(tmp_path, text, message):
    path = tmp_path / "x.tab"
    path.write_bytes(b"\xff\xfe" if text is None else text.encode())
    with pytest.raises(FormatError, match=message) as caught:
        read_tab(path)
    assert "\n" not in str(caught.value)


def test_tab_rows(tmp_path):
    path = tmp_path / "x.tab"
    path.write_text("Category\tText\nd\tstring\nclass\t\n\nb\tone\na\ttwo\n\nb\tthree\n")
    assert read_tab(path) == {"b": ["one", "three"], "a": ["two"]}


INTENTS = [intent for intents in DOMAINS.values() for intent in intents]


def rows(count):
    return [[f"{intent} {index}", intent] for index in range(count) for intent in INTENTS]


@pytest.fixture
def folder(tmp_path):
    data = {"train": rows(3), "val": rows(1), "test": rows(2), "oos_train": [["hm", "oos"]]}
    (tmp_path / "data_full.json").write_text(json.dumps(data))
    return tmp_path


def test_the_domain_table_has_ten_domains_of_fifteen_intents():
    assert [len(intents) for intents in DOMAINS.values()] == [15] * 10
    assert len(set(INTENTS)) == 150


def test_clinc_takes_train_and_test_from_a_folder(folder):
    tasks = clinc150(folder)
    assert [task.name for task in tasks] == list(DOMAINS)
    for task in tasks:
        assert task.classes == DOMAINS[task.name]
        wanted = {f"{intent} {index}" for intent in task.classes for index in range(3)}
        assert set(task.train_texts) == wanted
        assert len(task.test_texts) == 30
        for texts, labels in ((task.train_texts, task.train_labels), (task.test_texts, task.test_labels)):
            named = [text.split()[0] for text in texts]
            assert named == [task.classes[label] for label in labels]


def test_clinc_limits_and_validation(folder):
    tasks = clinc150(folder, tasks=2, train_per_task=15, test_split="val")
    assert [len(task.train_texts) for task in tasks] == [15, 15]
    assert np.bincount(tasks[0].train_labels).tolist() == [1] * 15
    assert len(tasks[0].test_texts) == 15


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tasks": 0}, "tasks: got 0"), ({"test_split": "dev"}, "test or val"), ({"train_per_task": 9}, "got 9")],
)
def test_clinc_refuses(folder, options, message):
    with pytest.raises(InputError, match=message):
        clinc150(folder, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[", "CLINC150's full data"),
        (json.dumps({"train": []}), "no 'test' in it"),
        (json.dumps({"train": rows(1), "test": [["a", "oos"]]}), "intent in test: got 'oos'"),
        (json.dumps({"train": rows(1)[1:], "test": rows(1)}), "no text for 'freeze_account'"),
        (json.dumps({"train": rows(1), "test": [["a"]]}), "CLINC150's full data"),
        (None, "No such file"),
    ],
)
def test_damaged_clinc_is_one_line(tmp_path, data, message):
    if data is not None:
        (tmp_path / "data_full.json").write_text(data)
    with pytest.raises(FormatError, match=message) as caught:
        clinc150(tmp_path)
    assert "\n" not in str(caught.value)


def test_clinc_comes_from_tfds_as_from_the_folder(folder, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    source = tmp_path / "downloaded"
    source.mkdir()
    for name, count in (("train", 3), ("val", 1), ("test", 2)):
        for kind, found in ((name, rows(count)), (f"{name}_ood", [["hm", "oos"]])):
            with (source / f"{kind}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["text", "intent", "domain", "intent_name", "domain_name"])
                table.writerows([text, 0, 0, intent, "some"] for text, intent in found)
    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", lambda self, url: str(source))
    found = clinc150(data_dir=str(tmp_path / "tfds"))
    for one, other in zip(found, clinc150(folder), strict=True):
        assert (one.name, one.classes) == (other.name, other.classes)
        assert set(zip(one.train_texts, one.train_labels.tolist(), strict=True)) == set(
            zip(other.train_texts, other.train_labels.tolist(), strict=True)
        )
        assert set(one.test_texts) == set(other.test_texts)


def test_digits_split_is_fixed_stratified_and_whole():
    from sklearn.datasets import load_digits

    train, test = digits_split()
    images, labels = load_digits(return_X_y=True)
    assert len(train) + len(test) == len(labels) == 1797
    assert train.inputs["images"].shape[1:] == (8, 8, 1)
    assert train.inputs["images"].dtype == np.float32
    assert train.inputs["images"].min() == 0
    assert train.inputs["images"].max() == 1
    share = np.bincount(test.labels) / np.bincount(labels)
    np.testing.assert_allclose(share, 0.3, atol=0.01)
    both = np.concatenate([train.inputs["images"], test.inputs["images"]]).reshape(-1, 64) * 16
    assert sorted(map(tuple, both)) == sorted(map(tuple, images))


def test_digits5_orders_pairs_by_seed():
    streams = [digits5(seed) for seed in (0, 0, 1)]
    names = [[task.name for task in stream.tasks] for stream in streams]
    assert names[0] == names[1] != names[2]
    assert sorted("+".join(names[0]).split("+")) == [str(digit) for digit in range(10)]
    assert streams[0].protocol == "task-incremental"
    assert sum(len(task.test) for task in streams[0].tasks) == len(digits_split()[1])
