"""Replay: the reservoir's distribution, the mix of a batch, and the terms of ER and DER++."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from method_jobs import EXAMPLES, begun, stream

from experiments.algorithms.plan import Plan
from experiments.algorithms.replay import Replay, draw, kept, logit_distance, reservoir, with_replay
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.train.losses import classification, per_task
from share_jax.trees import flat

SIZE = 10


def test_every_example_is_in_the_reservoir_with_equal_probability() -> None:
    """Offers of unlike sizes, as of tasks: the counts over many buffers pass a chi-square test at 0.1 %."""
    offers, rounds, counts = (3, 22, 5, 50), 4000, np.zeros(80)
    for number in range(rounds):
        rng, buffer, seen = np.random.default_rng([7, number]), np.full(SIZE, -1), 0
        for offered in offers:
            where, which = kept(reservoir(SIZE, seen, offered, rng))
            buffer[where] = seen + which
            seen += offered
        assert len(set(buffer)) == SIZE
        counts[buffer] += 1
    expected = rounds * SIZE / 80
    statistic = np.sum(np.square(counts - expected) / expected)
    assert statistic < 123.6  # 99.9 % of chi-square with 79 degrees of freedom; sampling without repetition has less


def test_the_reservoir_fills_up_first_and_later_offers_may_take_each_others_places() -> None:
    rng = np.random.default_rng(0)
    assert reservoir(5, 0, 3, rng).tolist() == [0, 1, 2]
    assert reservoir(5, 3, 2, rng).tolist() == [3, 4]
    where, which = kept(np.array([-1, 2, 0, 2]))
    assert where.tolist() == [0, 2]
    assert which.tolist() == [2, 3]


def _buffer(filled: int) -> dict:
    return {
        "inputs": {
            "hidden": np.full((6, 4, 2), 5, np.float32),
            "attention_mask": np.ones((6, 4), np.int32),
        },
        "labels": np.arange(6, dtype=np.int32),
        "classes": np.full(6, 7, np.int32),
        "head": np.array([0, 0, 1, 1, 0, 1], np.int32),
        "logits": np.arange(18, dtype=np.float32).reshape(6, 3),
        "seen": np.int32(filled),
    }


def _batch() -> dict:
    return {
        "inputs": {"hidden": np.ones((3, 2, 2), np.float32), "attention_mask": np.ones((3, 2), np.int32)},
        "labels": np.array([2, 1, 0], np.int32),
        "weights": np.array([1, 1, 0], np.float32),
        "classes": np.int32(4),
    }


def test_a_batch_has_the_task_s_own_examples_first_and_the_stated_number_of_replayed_ones_behind() -> None:
    rows = np.array([1, 3, 5, 5])
    mixed = with_replay(_batch(), _buffer(6), rows, head=2)
    assert mixed["inputs"]["hidden"].shape == (7, 4, 2)
    assert mixed["inputs"]["attention_mask"].tolist()[:3] == [[1, 1, 0, 0]] * 3  # a short text's padding is masked
    assert np.all(mixed["inputs"]["hidden"][:3, 2:] == 0)
    assert np.all(mixed["inputs"]["hidden"][3:] == 5)
    assert mixed["labels"].tolist() == [2, 1, 0, 1, 3, 5, 5]
    assert mixed["classes"].tolist() == [4, 4, 4, 7, 7, 7, 7]
    assert mixed["head"].tolist() == [2, 2, 2, 0, 1, 1, 1]
    assert mixed["weights"].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert mixed["replayed"].tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5]  # as much as the two that count
    assert np.array_equal(mixed["stored"][3:], _buffer(6)["logits"][rows])
    empty = with_replay(_batch(), _buffer(0), np.zeros(4, int), head=0)
    assert empty["replayed"].tolist() == [0] * 7
    assert {k: v.shape for k, v in empty["inputs"].items()} == {k: v.shape for k, v in mixed["inputs"].items()}


def test_draws_repeat_only_where_the_buffer_is_too_small() -> None:
    assert len(set(draw(9, 9, np.random.default_rng(0)))) == 9
    assert set(draw(2, 9, np.random.default_rng(0))) <= {0, 1}


def test_der_adds_the_distance_of_stored_logits_and_the_loss_of_replayed_examples() -> None:
    rng = np.random.default_rng(0)
    out = rng.normal(size=(5, 2, 3)).astype(np.float32)
    batch = {
        "labels": np.array([0, 1, 2, 1, 0], np.int32),
        "classes": np.array([3, 3, 3, 2, 3], np.int32),
        "head": np.array([1, 1, 0, 0, 0], np.int32),
        "weights": np.array([1, 1, 0, 0, 0], np.float32),
        "replayed": np.array([0, 0, 2 / 3, 2 / 3, 2 / 3], np.float32),
        "stored": rng.normal(size=(5, 3)).astype(np.float32),
    }
    own = out[np.arange(5), batch["head"]]

    def cross_entropy(row: int) -> float:
        logits = own[row, : batch["classes"][row]].astype(float)
        return float(np.log(np.exp(logits).sum()) - logits[batch["labels"][row]])

    def distance(row: int) -> float:
        count = batch["classes"][row]
        return float(np.mean(np.square(own[row, :count] - batch["stored"][row, :count])))

    new = sum(cross_entropy(row) for row in (0, 1)) / 2
    again = sum(cross_entropy(row) for row in (2, 3, 4)) / 3
    apart = sum(distance(row) for row in (2, 3, 4)) / 3
    for alpha, beta in ((0.0, 1.0), (0.5, 0.5), (0.3, 0.0)):
        sums = Replay(6, 3, beta, alpha).loss(classification)(jnp.asarray(out), batch)
        assert float(sums.weight) == 2
        assert float(sums.total / sums.weight) == pytest.approx(new + beta * again + alpha * apart, rel=1e-5)
    assert np.all(logit_distance(own, own, batch["classes"]) == 0)


def test_replayed_numbers_have_the_squared_error_and_classes_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    out, stored = rng.normal(size=(4, 2, 3)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    batch = {
        "labels": np.array([0.25, 2, 1.5, 1], np.float32),
        "classes": np.array([0, 3, 0, 2], np.int32),
        "head": np.array([0, 1, 0, 1], np.int32),
        "weights": np.array([1, 0, 0, 0], np.float32),
        "replayed": np.array([0, 1 / 3, 1 / 3, 1 / 3], np.float32),
        "stored": stored,
    }
    own = out[np.arange(4), batch["head"]].astype(float)
    losses = [np.square(own[row, 0] - batch["labels"][row]) for row in range(4)]
    for row, label, count in ((1, 2, 3), (3, 1, 2)):
        losses[row] = np.log(np.exp(own[row, :count]).sum()) - own[row, label]
    apart = [np.square(own[row, :count] - stored[row, :count]).mean() for row, count in enumerate((1, 3, 1, 2))]
    np.testing.assert_allclose(logit_distance(own, stored, batch["classes"]), apart, rtol=1e-5)
    total = Replay(6, 3, beta=0.5, alpha=0.3).loss(per_task)(jnp.asarray(out), batch).total
    assert float(total) == pytest.approx(losses[0] + 0.5 * np.mean(losses[1:]) + 0.3 * np.mean(apart[1:]), rel=1e-5)


def test_numbers_are_not_put_among_classes() -> None:
    batch = {**_batch(), "labels": np.array([0.5, 1.5, 2.5], np.float32)}
    with pytest.raises(TypeError, match="float32"):
        with_replay(batch, _buffer(6), np.array([1]), head=0)
    mixed = with_replay(batch, {**_buffer(6), "labels": np.arange(6, dtype=np.float32)}, np.array([1]), head=0)
    assert mixed["labels"].tolist() == [0.5, 1.5, 2.5, 1]


def test_the_buffer_is_filled_task_by_task_with_the_model_s_answers(tmp_path: Path) -> None:
    extension = Replay(30, 8, 0.5, 0.5)
    sequence, course = begun(tmp_path, Plan(SeparateLoRA(2), "adapter", "all", extension=extension))
    batches = sequence.batches(0, course.memory).dataset
    assert np.all(batches[0]["replayed"] == 0)
    course = sequence.learn_next(course)
    memory = course.memory
    assert int(memory["seen"]) == EXAMPLES
    train = stream().tasks[0].train
    assert np.array_equal(memory["inputs"]["images"][:EXAMPLES], train.inputs["images"])
    slot, scene = sequence.answering(course.bank, 0), sequence.scene
    answers = scene.forward({"params": sequence.job.backbone.params}, {}, slot, train.inputs, None)
    np.testing.assert_allclose(memory["logits"][:EXAMPLES], answers, atol=1e-5)
    first = sequence.batches(1, memory).dataset
    assert all(len(first[step]["labels"]) == 16 for step in range(3))
    assert np.all(first[0]["replayed"][8:] == 1)
    assert set(first[0]["head"][8:]) == {0}
    assert set(first[0]["head"][:8]) == {1}
    again = sequence.batches(1, memory).dataset
    same = [np.array_equal(first[0]["inputs"]["images"], again[step]["inputs"]["images"]) for step in range(2)]
    assert same == [True, False]
    course = sequence.learn_next(course)
    assert int(course.memory["seen"]) == 2 * EXAMPLES
    assert set(course.memory["head"]) == {0, 1}
    before, after = (flat(read_slot(course.bank.tasks, task))["head/kernel"] for task in range(2))
    assert not np.array_equal(before[0], after[0])  # replay trains the first task's head
    assert np.array_equal(before[2], after[2])
