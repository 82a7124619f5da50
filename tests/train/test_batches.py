"""Batches as a pure function of seed, task and step."""

import numpy as np
import pytest

from share_jax.errors import InputError
from share_jax.train.batches import eval_batches, order, pick, steps_per_epoch, train_batches

INPUTS = {"x": np.arange(20.0).reshape(10, 2)}
LABELS = np.arange(10) % 3
OPTIONS = {"batch_size": 4, "classes": 3, "seed": 5, "task": 1, "steps": 7}


def seen(batch) -> list[int]:
    return [int(row[0]) // 2 for row, weight in zip(batch["inputs"]["x"], batch["weights"], strict=True) if weight]


def test_an_epoch_covers_every_example_once_in_an_order_of_its_own():
    batches = list(train_batches(INPUTS, LABELS, **OPTIONS))
    assert len(batches) == 7
    epochs = [[i for batch in batches[start : start + 3] for i in seen(batch)] for start in (0, 3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert epochs[0] != epochs[1]


def test_every_batch_has_one_shape_and_padding_has_weight_zero():
    for batch in train_batches(INPUTS, LABELS, **OPTIONS):
        assert batch["inputs"]["x"].shape == (4, 2)
        assert (batch["labels"].shape, batch["labels"].dtype) == ((4,), np.int32)
        assert (batch["weights"].shape, batch["weights"].dtype) == ((4,), np.float32)
        assert batch["classes"] == 3
        assert [LABELS[i] for i in seen(batch)] == list(batch["labels"][: len(seen(batch))])
        assert (batch["labels"] < 3).all()


def test_starting_in_the_middle_gives_the_same_batches():
    whole = list(train_batches(INPUTS, LABELS, **OPTIONS))
    rest = list(train_batches(INPUTS, LABELS, **OPTIONS, start=4))
    assert [seen(b) for b in rest] == [seen(b) for b in whole[4:]]


def test_order_depends_on_seed_task_and_epoch_alone():
    assert np.array_equal(order(50, 1, 2, 3), order(50, 1, 2, 3))
    others = [order(50, 0, 2, 3), order(50, 1, 0, 3), order(50, 1, 2, 0)]
    assert all(not np.array_equal(order(50, 1, 2, 3), other) for other in others)


def test_evaluation_sees_every_example_once_in_order():
    batches = list(eval_batches(INPUTS, LABELS, batch_size=4, classes=3))
    assert [i for batch in batches for i in seen(batch)] == list(range(10))
    assert {b["inputs"]["x"].shape for b in batches} == {(4, 2)}


@pytest.mark.parametrize(("examples", "size", "want"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_steps_per_epoch(examples, size, want):
    assert steps_per_epoch(examples, size) == want


@pytest.mark.parametrize("count", [0, 5])
def test_an_empty_or_too_long_batch_is_an_input_error(count):
    with pytest.raises(InputError):
        pick(INPUTS, LABELS, np.arange(count), 4, 3)


def test_a_task_without_examples_is_an_input_error():
    with pytest.raises(InputError, match="examples"):
        next(train_batches({"x": np.zeros((0, 2))}, np.zeros(0, int), **OPTIONS))
