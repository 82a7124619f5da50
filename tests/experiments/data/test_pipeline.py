"""Train batches through Grain: the published order, exact resume, shards of hosts, and length buckets."""

import json
import threading
import time

import numpy as np
import pytest

from experiments.data.batch_order import Shard, bucketed, token_counts
from experiments.data.pipeline import Pipeline, task_pipeline
from experiments.data.sources import ArraySource

OPTIONS = {"batch_size": 4, "classes": 3, "seed": 5, "task": 1, "steps": 11}


def source(count: int = 10) -> ArraySource:
    return ArraySource({"x": np.arange(2.0 * count).reshape(count, 2)}, np.arange(count) % 3)


def texts(count: int = 61, length: int = 24) -> ArraySource:
    """Rows of different lengths, right-padded; `id` tells them apart."""
    tokens = np.random.default_rng(3).integers(2, length + 1, count)
    mask = (np.arange(length) < tokens[:, None]).astype(np.int32)
    inputs = {"input_ids": mask * 7, "attention_mask": mask, "id": np.arange(count)}
    return ArraySource({**inputs, "hidden": np.repeat(mask[:, :, None] * 0.5, 3, axis=2)}, np.zeros(count, np.int32))


def text_pipeline(shard: Shard = Shard(), lengths: tuple[int, ...] = (8, 16), steps: int = 24) -> Pipeline:  # noqa: B008
    made = texts()
    options = {**OPTIONS, "steps": steps, "batch_size": 8}
    return task_pipeline(made, **options, buckets=bucketed(made.inputs, lengths), shard=shard)


def taken(pipeline: Pipeline, prefetch: int = 2, state=0, count: int | None = None) -> list:
    with pipeline.open(state, prefetch=prefetch) as stream:
        return [batch for batch, _ in zip(stream, range(count if count is not None else 10**6), strict=False)]


def assert_same(one: list, other: list) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        assert first["inputs"].keys() == second["inputs"].keys()
        flat = [
            {**batch["inputs"], **{k: batch[k] for k in ("labels", "weights", "classes")}} for batch in (first, second)
        ]
        for name, array in flat[0].items():
            np.testing.assert_array_equal(array, flat[1][name], strict=True)


def seen(batch: dict) -> list[int]:
    return [int(row[0]) // 2 for row, weight in zip(batch["inputs"]["x"], batch["weights"], strict=True) if weight]


@pytest.mark.parametrize("prefetch", [0, 3])
def test_without_buckets_the_batches_are_those_of_the_published_tables(prefetch):
    """The formula by which the tables were made, written out: default_rng([seed, task, epoch]), cut and padded."""
    arrays = source()
    batches = taken(task_pipeline(arrays, **OPTIONS), prefetch)
    assert len(batches) == 11
    for step, batch in enumerate(batches):
        epoch, place = divmod(step, 3)
        index = np.random.default_rng([5, 1, epoch]).permutation(10)[place * 4 : place * 4 + 4]
        count = len(index)
        index = np.concatenate([index, np.repeat(index[:1], 4 - count)])
        want = {
            "inputs": {"x": arrays.inputs["x"][index]},
            "labels": arrays.labels[index].astype(np.int32),
            "weights": (np.arange(4) < count).astype(np.float32),
            "classes": np.int32(3),
        }
        assert_same([batch], [want])
        assert (batch["labels"].dtype, batch["weights"].dtype) == (np.int32, np.float32)


def test_an_epoch_covers_every_example_once_in_an_order_of_its_own():
    batches = taken(task_pipeline(source(), **OPTIONS))
    epochs = [[i for batch in batches[start : start + 3] for i in seen(batch)] for start in (0, 3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("done", [0, 1, 4, 12, 24])
def test_a_stream_goes_on_from_its_state_to_the_bit_in_mid_epoch_with_batches_prefetched(prefetch, done):
    pipeline = text_pipeline()
    whole = taken(pipeline, 0)
    with pipeline.open(prefetch=prefetch) as stream:
        before = [next(stream) for _ in range(done)]
        if prefetch:
            time.sleep(0.02)  # let the threads run ahead of what was taken
        state = json.loads(json.dumps(stream.state()))
    assert_same([*before, *taken(text_pipeline(), prefetch, state)], whole)


def test_batches_can_be_asked_for_in_any_order():
    pipeline = text_pipeline()
    whole = taken(pipeline)
    assert_same([pipeline.dataset[step] for step in (17, 3, 23, 3)], [whole[step] for step in (17, 3, 23, 3)])


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_read_the_global_batch_in_parts_whatever_their_number(hosts):
    whole = taken(text_pipeline())
    parts = [taken(text_pipeline(Shard(host, hosts))) for host in range(hosts)]
    for step, batch in enumerate(whole):
        for name in ("labels", "weights"):
            np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), batch[name])
        for name, array in batch["inputs"].items():
            np.testing.assert_array_equal(np.concatenate([part[step]["inputs"][name] for part in parts]), array)


def test_a_state_saved_by_one_host_is_that_of_four():
    with text_pipeline().open() as stream:
        for _ in range(5):
            next(stream)
        state = stream.state()
    shard = Shard(2, 4)
    assert_same(taken(text_pipeline(shard), 2, state), taken(text_pipeline(shard))[5:])


def test_buckets_hold_every_text_once_cut_no_token_and_pad_less():
    made, pipeline = texts(), text_pipeline()
    tokens = made.inputs["attention_mask"].sum(1)
    for start in (0, 8, 16):
        batches = [pipeline.dataset[step] for step in range(start, start + 8)]
        ids = np.concatenate([batch["inputs"]["id"][batch["weights"] > 0] for batch in batches])
        assert sorted(ids.tolist()) == list(range(61))
        for batch in batches:
            width = batch["inputs"]["attention_mask"].shape[1]
            assert width in (8, 16, 24)
            assert batch["inputs"]["hidden"].shape == (8, width, 3)
            assert batch["inputs"]["input_ids"].flags.c_contiguous
            np.testing.assert_array_equal(batch["inputs"]["attention_mask"].sum(1), tokens[batch["inputs"]["id"]])
        widths = [batch["inputs"]["attention_mask"].shape[1] for batch in batches]
        assert len(set(widths)) == 3
        assert widths != sorted(widths)
        used = sum(int(tokens[batch["inputs"]["id"]].sum()) for batch in batches)
        assert 1 - used / (8 * sum(widths)) < 0.7 * (1 - used / (8 * 24 * 8))
    first = [pipeline.dataset[step]["inputs"]["id"].tolist() for step in range(16)]
    assert first[:8] != first[8:]


def test_the_samples_have_every_shape_that_occurs_and_no_other():
    pipeline = text_pipeline()
    shapes = {batch["inputs"]["hidden"].shape for batch in taken(pipeline)}
    assert {pipeline.sample(width)["inputs"]["hidden"].shape for width in pipeline.widths} == shapes
    plain = task_pipeline(source(), **OPTIONS)
    assert [plain.sample(width)["inputs"]["x"].shape for width in plain.widths] == [(4, 2)]


def test_a_mapped_pipeline_changes_batches_samples_and_not_the_state():
    plain = task_pipeline(source(), **OPTIONS)
    mapped = plain.map(lambda batch: {**batch, "classes": batch["labels"] + 1})
    for batch in (*taken(mapped), mapped.sample(None)):
        np.testing.assert_array_equal(batch["classes"], batch["labels"] + 1)
    assert_same(taken(plain, 2, mapped.open(4).state()), taken(plain)[4:])


def test_prefetch_prepares_ahead_and_no_further_and_closing_ends_the_threads():
    asked: list[int] = []

    class Watched(ArraySource):
        def take(self, index):
            asked.append(len(index))
            return super().take(index)

    arrays = source()
    pipeline = task_pipeline(Watched(arrays.inputs, arrays.labels), **OPTIONS)
    with pipeline.open(prefetch=3) as held:
        next(held)
        for _ in range(200):
            if len(asked) == 4:
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(asked) == 4  # the one taken and three ahead
    before = len(asked)
    with pipeline.open(prefetch=0) as stream:
        next(stream)
        assert len(asked) == before + 1
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=5)
            assert not thread.is_alive()
    assert held.state()["next_index"] == 1  # it may still be saved


def test_lengths_are_read_off_the_mask():
    assert token_counts(np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]])).tolist() == [2, 0, 3]
    made = bucketed(texts().inputs, (8, 40))
    assert made is not None
    assert (made.lengths, made.inputs) == ((8, 24), ("input_ids", "attention_mask", "hidden"))
    assert bucketed(texts().inputs, ()) is None
    assert bucketed(source().inputs, (8,)) is None
