"""What the input refuses, each in one line, in the loop as well as in the threads that prepare ahead."""

import numpy as np
import pytest

from experiments.data.batch_order import Buckets, Order, Shard
from experiments.data.pipeline import Pipeline, task_pipeline
from experiments.data.sources import ArraySource, RecordSource
from share_jax.errors import FormatError, InputError

OPTIONS = {"batch_size": 4, "classes": 3, "seed": 5, "task": 1, "steps": 11}


def source(count: int = 10) -> ArraySource:
    return ArraySource({"x": np.arange(2.0 * count).reshape(count, 2)}, np.arange(count) % 3)


def refused(message: str, kind: type[Exception], make) -> None:
    with pytest.raises(kind, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def made(count: int = 10, shard: Shard = Shard(), **changes) -> Pipeline:  # noqa: B008
    return task_pipeline(source(count), **{**OPTIONS, **changes}, shard=shard)


STATE = made().open(1).state()


def records(*changes: dict) -> list[dict]:
    return [{"x": np.zeros(2, np.float32), "label": 1, **change} for change in changes]


def read(rows: list, label: str = "label", name: str = "x") -> None:
    RecordSource(rows, lambda row: {"x": row[name]}, label).take(np.arange(len(rows)))


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("examples of the source: got 0", lambda: source(0)),
        ("examples of the source: got 0", lambda: read([])),
        ("feature of example 0: got 'image', expected one of .'label', 'x'.", lambda: read(records({}), name="image")),
        ("feature of example 0: got 'target'", lambda: read(records({}), label="target")),
        ("example 0: got tuple, expected a dict", lambda: read([(np.zeros(2), 1)])),
        ("converted example 0: got ndarray", lambda: RecordSource(records({}), lambda row: row["x"])),
        ("inputs of example 1: got {'x': 'float32.3.'}", lambda: read(records({}, {"x": np.zeros(3, np.float32)}))),
        ("inputs of example 1: got {'x': 'uint8.2.'}", lambda: read(records({}, {"x": np.zeros(2, np.uint8)}))),
        ("input 'x': got .*, expected an array of numbers", lambda: read(records({"x": "a text"}))),
        ("label of example 0: got float64", lambda: read(records({"label": 0.5}))),
        ("input 'x': got 3, expected 2", lambda: ArraySource({"x": np.zeros(3)}, np.zeros(2, int))),
        ("labels: got float64", lambda: ArraySource({"x": np.zeros(2)}, np.zeros(2))),
        ("hosts: got 16, expected at most 10", lambda: made(batch_size=16, shard=Shard(0, 16))),
        ("batch size: got 4, expected a multiple of the 3 hosts", lambda: made(shard=Shard(0, 3))),
        ("host: got 2 of 2", lambda: Shard(2, 2)),
        ("batch size: got 0", lambda: made(batch_size=0)),
        ("labels of a batch: got 0 to 2, expected 0 to 1", lambda: made(classes=2).dataset[0]),
        ("bucket lengths: got .16, 8., expected rising", lambda: Buckets(np.array([3]), (16, 8), ())),
        ("last bucket length: got 8, expected at least 9", lambda: Buckets(np.array([3, 9]), (8,), ())),
        ("token counts: got 1, expected 2", lambda: Order(2, 1, 0, 0, Buckets(np.array([3]), (8,), ()))),
        ("seed in the input's state: got 5, expected 6", lambda: made(seed=6).open(STATE)),
        ("examples in the input's state: got 10, expected 12", lambda: made(12).open(STATE)),
        ("lengths in the input's state: got .8, 24., expected", lambda: made().open({**STATE, "lengths": [8, 24]})),
        ("steps done in the input's state: got 12, expected 0 to 11", lambda: made().open(12)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(message, make):
    refused(message, InputError, make)


def test_a_state_without_a_position_is_one_line():
    refused("expected a next_index", FormatError, lambda: made().open({"step": 3}))


def test_an_error_in_a_prefetching_thread_reaches_the_loop():
    rows = [*records({}, {}, {}), {"x": np.zeros(3, np.float32), "label": 0}]
    pipeline = task_pipeline(RecordSource(rows, lambda row: {"x": row["x"]}), **OPTIONS)

    def loop() -> None:
        with pipeline.open(prefetch=2) as stream:
            list(stream)

    refused("inputs of example", InputError, loop)
