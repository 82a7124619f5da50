"""What batches are made of: the order of an epoch, padding, and the batches of an evaluation."""

import numpy as np
import pytest

from share_jax.errors import InputError
from share_jax.train.batches import eval_batches, order, pick, steps_per_epoch

INPUTS = {"x": np.arange(20.0).reshape(10, 2)}
LABELS = np.arange(10) % 3


def seen(batch) -> list[int]:
    return [int(row[0]) // 2 for row, weight in zip(batch["inputs"]["x"], batch["weights"], strict=True) if weight]


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
