"""Choosing rates without the test: a stream tested on a part of its own training examples."""

import numpy as np

from experiments.config.run_config import command_line, parse
from experiments.stream_and_backbone import raw_stream
from experiments.streams.base import Split, Stream, Task
from experiments.streams.held_out import held_out

DIGITS = ["--experiment", "digits5", "--preset", "quick"]


def rows(split):
    """The examples of a split, as sets of bytes."""
    return sorted(image.tobytes() for image in split.inputs["images"])


def test_a_fifth_of_each_class_is_tested_on_and_not_trained_on():
    stream = raw_stream(parse(DIGITS))
    found = held_out(stream, 0)
    assert found.protocol == stream.protocol
    for task, before in zip(found.tasks, stream.tasks, strict=True):
        assert (task.name, task.classes) == (before.name, before.classes)
        assert sorted(rows(task.train) + rows(task.test)) == rows(before.train)
        for label in range(len(task.classes)):
            count = np.sum(before.train.labels == label)
            assert np.sum(task.test.labels == label) == round(0.2 * count)


def test_labels_stay_with_their_examples():
    stream = raw_stream(parse(DIGITS))
    known = {
        image.tobytes(): label
        for image, label in zip(stream.tasks[2].train.inputs["images"], stream.tasks[2].train.labels, strict=True)
    }
    task = held_out(stream, 3).tasks[2]
    for split in (task.train, task.test):
        assert [known[image.tobytes()] for image in split.inputs["images"]] == list(split.labels)


def test_a_seed_draws_the_same_and_another_one_others():
    stream = raw_stream(parse(DIGITS))
    one, again, other = (held_out(stream, seed).tasks[0].test.inputs["images"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_tasks_that_ask_for_a_number_give_a_fifth_too():
    x, y = np.arange(20, dtype=np.float32)[:, None], np.linspace(0, 1, 20, dtype=np.float32)
    task = Task("scores", (), Split({"x": x}, y), Split({"x": x}, y), kind="regression")
    found = held_out(Stream("numbers", "task-incremental", (task,)), 0).tasks[0]
    assert (len(found.train), len(found.test)) == (16, 4)
    np.testing.assert_array_equal(found.test.inputs["x"][:, 0], found.test.labels * 19)


def test_the_flag_is_part_of_the_command_that_repeats_a_run():
    assert "--held-out" in command_line(parse([*DIGITS, "--held-out"]))
    assert "--held-out" not in command_line(parse(DIGITS))
