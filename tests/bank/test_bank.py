"""The bank: names and slots stay together, growth keeps learnt bits, nothing is taken for something else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.bank.bank import TaskBank, check_new_name, next_slot, with_room, with_task
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError, TaskError


def fresh(size: int) -> dict:
    return {"layer": {"lora_b": jnp.full((size, 2, 3), -1.0)}}


def value(number: float) -> dict:
    return {"layer": {"lora_b": jnp.full((2, 3), number)}}


def bank_of(*names: str, capacity: int = 4) -> TaskBank:
    bank = TaskBank({"layer": {"lora_a": jnp.ones((3, 2))}}, fresh(capacity))
    for number, name in enumerate(names):
        bank = with_task(bank, name, bank.shared, value(float(number)))
    return bank


def test_each_learnt_task_is_read_back_from_its_own_slot():
    bank = bank_of("red", "green", "blue")
    for number, name in enumerate(("red", "green", "blue")):
        assert bank.index(name) == number
        assert np.array_equal(
            read_slot(bank.tasks, bank.index(name))["layer"]["lora_b"], value(number)["layer"]["lora_b"]
        )


def test_an_unknown_name_lists_near_matches_in_one_line():
    bank = bank_of("banking", "travel", "auto")
    with pytest.raises(TaskError) as caught:
        bank.index("bankin")
    assert "banking" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(TaskError, match="learn a task first"):
        bank_of().index("anything")


@pytest.mark.parametrize("name", ["", "red"])
def test_an_empty_or_taken_name_is_refused_and_nothing_changes(name):
    bank = bank_of("red")
    with pytest.raises(TaskError):
        check_new_name(bank, name)
    with pytest.raises(TaskError):
        with_task(bank, name, bank.shared, value(9.0))
    assert bank.names == ("red",)
    assert np.array_equal(read_slot(bank.tasks, 0)["layer"]["lora_b"], value(0.0)["layer"]["lora_b"])


@pytest.mark.parametrize("name", [3, None, b"red", ("a", "b")])
def test_a_name_that_is_no_text_is_refused_in_one_line(name):
    with pytest.raises(TaskError, match=f"new task name: got {type(name).__name__} ") as caught:
        with_task(bank_of("red"), name, {}, value(9.0))
    assert "\n" not in str(caught.value)


def test_one_name_or_id_stands_for_the_whole_batch():
    bank = bank_of("red", "green")
    for one in ("green", 1, np.int64(1), jnp.int32(1), np.array(1)):
        ids = bank.ids(one)
        assert (ids.shape, int(ids)) == ((), 1)
    assert np.array_equal(bank.ids(["green", 0, "red"]), [1, 0, 0])


@pytest.mark.parametrize(
    ("tasks", "error", "words"),
    [
        (2, TaskError, "task_id: got 2, expected 0 to 1"),
        (jnp.int32(-1), TaskError, "task_id: got -1, expected 0 to 1"),
        ("gren", TaskError, "near matches: green"),
        (True, InputError, "task_id: got dtype bool"),
        (None, InputError, "tasks: got NoneType"),
        (0.0, InputError, "tasks: got float"),
        ([None, None], InputError, "task_id: got dtype object"),
    ],
)
def test_what_is_no_learnt_task_is_refused_in_one_line(tasks, error, words):
    with pytest.raises(error) as caught:
        bank_of("red", "green").ids(tasks)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_id_where_nothing_is_learnt_is_refused_without_a_range_that_is_none():
    with pytest.raises(TaskError, match="task_id: got 0, expected no id"):
        bank_of().ids(0)


def test_a_full_bank_gives_no_next_slot_instead_of_an_old_task():
    bank = bank_of("red", "green", capacity=2)
    with pytest.raises(TaskError):
        next_slot(bank)
    with pytest.raises(TaskError):
        with_task(bank, "blue", bank.shared, value(9.0))


def test_next_slot_is_fresh():
    assert np.array_equal(next_slot(bank_of("red"))["layer"]["lora_b"], np.full((2, 3), -1.0))


def test_learnt_refuses_a_slot_of_another_shape():
    bank = bank_of("red")
    with pytest.raises(InputError):
        with_task(bank, "green", bank.shared, {"layer": {"lora_b": jnp.zeros((2, 4))}})


def test_growth_doubles_and_keeps_learnt_slots_to_the_bit():
    bank = bank_of("red", "green", capacity=2)
    asked: list[int] = []

    def note(size: int) -> dict:
        asked.append(size)
        return fresh(size)

    assert with_room(bank, note, 2) is bank
    assert asked == []
    grown = with_room(bank, note, 3)
    assert (grown.capacity, asked) == (4, [2])
    assert with_room(grown, note, 9).capacity == 16
    assert grown.names == bank.names
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[:2], grown.tasks)
    assert np.array_equal(first["layer"]["lora_b"], np.asarray(bank.tasks["layer"]["lora_b"]))
    assert np.array_equal(next_slot(grown)["layer"]["lora_b"], np.full((2, 3), -1.0))


def test_learning_returns_a_new_bank_and_leaves_the_old_one():
    bank = bank_of("red")
    after = with_task(bank, "green", {"layer": {"lora_a": jnp.zeros((3, 2))}}, value(5.0))
    assert (bank.names, after.names) == (("red",), ("red", "green"))
    assert np.array_equal(bank.shared["layer"]["lora_a"], np.ones((3, 2)))
    assert np.array_equal(read_slot(bank.tasks, 1)["layer"]["lora_b"], np.full((2, 3), -1.0))
