"""Streams as plain data: validation, splitting by classes, tokenising."""

import numpy as np
import pytest

from experiments.streams.base import Split, Stream, Task, TextTask, stream_from_arrays, tokenize
from experiments.streams.sample import sample
from share_jax.errors import InputError


def split(labels, width=2):
    return Split({"x": np.zeros((len(labels), width), np.float32)}, np.array(labels))


def task(name="a", classes=("no", "yes"), train=(0, 1), test=(1,)):
    return Task(name, classes, split(train), split(test))


def one_line(caught):
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_labels_become_int32_and_the_inputs_are_not_shared():
    inputs = {"x": np.zeros((2, 3))}
    made = Split(inputs, np.array([1, 0], np.int64))
    inputs["y"] = np.zeros(5)
    assert made.labels.dtype == np.int32
    assert set(made.inputs) == {"x"}
    assert len(made) == 2


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ({}, [0], "at least one array"),
        ({"x": np.zeros((2, 3))}, [0], "leading axis 1"),
        ({"x": np.float32(1)}, [0], "leading axis 1"),
        ({"x": [[1.0]]}, [0], "got list"),
        ({"x": np.zeros((1, 3))}, [0.5], "vector of whole numbers"),
        ({"x": np.zeros((1, 3))}, [-1], "vector of whole numbers"),
        ({"x": np.zeros((1, 3))}, [[[0]]], "vector of whole numbers"),
    ],
)
def test_split_refuses(inputs, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        Split(inputs, np.array(labels))
    one_line(caught)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "task name"),
        ({"classes": ()}, "classes of task 'a': got none"),
        ({"classes": ("no", "no")}, "'no' twice"),
        ({"train": (0, 2)}, "train labels of task 'a': got 2, expected below 2"),
        ({"test": (5,)}, "test labels of task 'a': got 5"),
        ({"train": ()}, "train labels of task 'a': got none"),
        ({"train": (1,)}, "train examples of task 'a': got one, expected at least two"),
    ],
)
def test_task_refuses(change, message):
    with pytest.raises(InputError, match=message) as caught:
        task(**change)
    one_line(caught)


def test_task_refuses_splits_of_different_form():
    with pytest.raises(InputError, match="test inputs of task 'a'"):
        Task("a", ("no", "yes"), split([0, 1]), split([1], width=3))


@pytest.mark.parametrize(
    ("protocol", "tasks", "message"),
    [
        ("online", (task(),), "task-incremental, domain-incremental, class-incremental"),
        ("task-incremental", (), "got none"),
        ("task-incremental", (task("a"), task("a")), "'a' twice"),
        ("domain-incremental", (task("a"), task("b", ("x", "y"))), "in task 'b'"),
        ("class-incremental", (task("a"), task("b")), "'no' in two tasks"),
    ],
)
def test_stream_refuses(protocol, tasks, message):
    with pytest.raises(InputError, match=message) as caught:
        Stream("s", protocol, tasks)
    one_line(caught)


def test_each_protocol_takes_what_it_says():
    same = (task("a"), task("b"))
    apart = (task("a"), task("b", ("x", "y")))
    assert len(Stream("s", "task-incremental", same).tasks) == 2
    assert len(Stream("s", "domain-incremental", same).tasks) == 2
    assert len(Stream("s", "class-incremental", apart).tasks) == 2


def numbered(labels):
    return {"x": np.arange(len(labels), dtype=np.float32)[:, None]}, np.array(labels)


def test_arrays_are_split_by_groups_with_local_labels():
    stream = stream_from_arrays(
        "s",
        train=numbered([3, 0, 2, 1, 0, 3]),
        test=numbered([2, 3, 1, 0]),
        groups=[[3, 0], [1, 2]],
        class_names=["zero", "one", "two", "three"],
    )
    first, second = stream.tasks
    assert (first.name, first.classes) == ("three+zero", ("three", "zero"))
    assert first.train.inputs["x"][:, 0].tolist() == [0, 1, 4, 5]
    assert first.train.labels.tolist() == [0, 1, 1, 0]
    assert first.test.labels.tolist() == [0, 1]
    assert second.train.inputs["x"][:, 0].tolist() == [2, 3]
    assert second.train.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("groups", "names", "message"),
    [
        ([[0, 7]], ["a", "b"], "label in a group: got 7, expected 0 to 1"),
        ([[0, 0]], None, "'0' twice"),
        ([[5]], None, "train labels of task '5': got none"),
        ([], None, "tasks of stream 's': got none"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, names, message):
    with pytest.raises(InputError, match=message):
        stream_from_arrays("s", train=numbered([0, 1]), test=numbered([1, 0]), groups=groups, class_names=names)


TEXTS = TextTask("t", ("no", "yes"), ("a b", "c"), np.array([0, 1]), ("d e f",), np.array([1]))


def words(texts):
    longest = max(len(text.split()) for text in texts)
    ids = np.array([[ord(w) for w in t.split()] + [0] * (longest - len(t.split())) for t in texts])
    return ids, (ids > 0).astype(np.int64)


def test_tokenize_pads_every_split_to_one_length():
    (made,) = tokenize([TEXTS], words, 4)
    assert made.train.inputs["input_ids"].tolist() == [[97, 98, 0, 0], [99, 0, 0, 0]]
    assert made.train.inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert made.test.inputs["input_ids"].tolist() == [[100, 101, 102, 0]]
    assert {array.dtype for array in made.test.inputs.values()} == {np.dtype(np.int32)}
    assert made.test.labels.tolist() == [1]


def test_tokenize_refuses_to_cut():
    with pytest.raises(InputError, match="make the encoder with max_length=2"):
        tokenize([TEXTS], words, 2)


def test_text_task_counts_its_labels():
    with pytest.raises(InputError, match="train labels of task 't': got 1, expected 2"):
        TextTask("t", ("no",), ("a", "b"), np.array([0]), ("c",), np.array([0]))


def test_smaller_samples_are_subsets_and_balanced():
    classes = [[f"a{i}" for i in range(9)], [f"b{i}" for i in range(9)], ["c0"]]
    keys = [[0, 0], [0, 1], [0, 2]]
    small, labels = sample(classes, 7, keys)
    large, _ = sample(classes, 14, keys)
    every, _ = sample(classes, None, keys)
    assert set(small) < set(large) < set(every) == {text for texts in classes for text in texts}
    assert np.bincount(labels).tolist() == [3, 2, 1]
    assert all(text.startswith("abc"[label]) for text, label in zip(small, labels, strict=True))
    assert list(labels) != sorted(labels)
    assert sample(classes, 7, keys)[0] == small
    assert sample(classes, 7, [[1, 0], [1, 1], [1, 2]])[0] != small
    with pytest.raises(InputError, match="got 2, expected at least 3"):
        sample(classes, 2, keys)
