"""A bank on disk: what is loaded has the bits of what was saved, learning goes on from it, nothing is overwritten."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learning import two_layers

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.checkpoint import checkpoint
from share_jax.errors import BusyError, FormatError, InputError, SaveError, TaskError
from share_jax.storage import lock
from share_jax.typing import TaskId

X = jnp.asarray(np.random.default_rng(1).standard_normal((24, 6)), jnp.float32)
METHODS = (share_jax.SharedA(rank=2), share_jax.Share(num_basis=4, pseudo_rank=2), share_jax.SeparateLoRA(rank=2))


def batches(column: int, steps: int = 5) -> list[dict[str, Any]]:
    return [{"inputs": X, "labels": (X[:, column] > 0).astype(jnp.int32)}] * steps


class Own(nn.Module):
    """A model of one's own, with two slots."""

    slots: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, task_id: TaskId) -> jax.Array:
        x = nn.gelu(share_jax.SharedLoRADense(16, num_tasks=self.slots)(x, task_id))
        return share_jax.TaskHead(2, num_tasks=self.slots)(x, task_id)


@cache
def own(slots: int = 2) -> tuple[share_jax.Learner, TaskBank]:
    variables = Own(slots).init(jax.random.key(0), X, task_id=0)
    learner = share_jax.Learner(Own(slots), {"params": variables["params"]}, optax.adamw(1e-2))
    return learner, learner.start(variables)


@cache
def adapted(method: Any = METHODS[0], *, slots: int = 1, seed: int = 0, width: int = 16) -> Any:
    return two_layers(X, optax.adamw(1e-2), hidden=width, method=method, slots=slots, seed=seed)


def learnt(learner: share_jax.Learner, bank: TaskBank, *names: str) -> TaskBank:
    for name in names:
        bank = learner.learn(bank, name, batches(len(bank.names)))
    return bank


def assert_same_answers(one: share_jax.Learner, bank: TaskBank, other: share_jax.Learner, loaded: TaskBank) -> None:
    assert loaded.names == bank.names
    for name in bank.names:
        want = np.asarray(one.predict(bank, name, X))
        np.testing.assert_array_equal(np.asarray(other.predict(loaded, name, X)), want)


@pytest.mark.parametrize("make", [partial(own), *(partial(adapted, method) for method in METHODS)])
def test_what_is_loaded_answers_with_the_same_bits_and_learns_on_with_them(make: Any, tmp_path: Path) -> None:
    learner, fresh = make()
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path / "bank", learner, bank)
    again, empty = make.func.__wrapped__(*make.args)  # another learner, as of another process
    loaded = share_jax.load_bank(tmp_path / "bank", again, empty)
    assert_same_answers(learner, bank, again, loaded)
    both = learnt(learner, bank, "second")
    assert_same_answers(learner, both, again, learnt(again, loaded, "second"))


def test_saving_again_writes_new_tasks_alone(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path, learner, bank)
    kept = {path: path.stat().st_mtime_ns for part in ("shared", "tasks") for path in (tmp_path / part).rglob("*")}
    bank = learnt(learner, bank, "second", "third")
    store = share_jax.save_bank(tmp_path, learner, bank, infos={"third": {"accuracy": 0.5}})
    assert store.names == ("first", "second", "third")
    assert (store.info("second"), store.info("third")) == ({}, {"accuracy": 0.5})
    for path, changed in kept.items():
        if path.is_file():
            assert path.stat().st_mtime_ns == changed, path
    loaded = share_jax.load_bank(tmp_path, learner, fresh)  # its stack of one slot grows
    assert loaded.capacity == 4
    assert_same_answers(learner, bank, learner, loaded)
    share_jax.save_bank(tmp_path, learner, loaded)  # all is saved: nothing to do


def test_a_file_that_is_nobodys_hinders_no_save_and_stays(tmp_path: Path) -> None:
    """The file manager of macOS leaves one in every folder that it has shown."""
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path, learner, bank)
    (tmp_path / "tasks" / ".DS_Store").touch()
    share_jax.save_bank(tmp_path, learner, learnt(learner, bank, "second"))
    assert share_jax.load_bank(tmp_path, learner, fresh).names == ("first", "second")
    assert (tmp_path / "tasks" / ".DS_Store").exists()


def test_an_empty_bank_comes_back_empty(tmp_path: Path) -> None:
    learner, fresh = adapted()
    share_jax.save_bank(tmp_path, learner, fresh)
    assert share_jax.load_bank(tmp_path, learner, fresh) is fresh


def test_a_router_is_kept_with_the_tasks(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    router = share_jax.add_task(share_jax.empty_router(6), "first", X, np.asarray(batches(0)[0]["labels"]))
    share_jax.save_bank(tmp_path, learner, bank)
    store = share_jax.save_bank(tmp_path, learner, bank, router=router)
    assert list(checkpoint.load_router(store).tasks) == ["first"]
    store = share_jax.save_bank(tmp_path, learner, learnt(learner, bank, "second"))
    assert list(checkpoint.load_router(store).tasks) == ["first"]


def test_another_bank_of_the_same_names_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path, learner, bank)
    other = learner.learn(fresh, "first", batches(3))
    with pytest.raises(InputError, match=r"leaf .* of task 'first': got other values than were saved"):
        share_jax.save_bank(tmp_path, learner, other)
    assert_same_answers(learner, bank, learner, share_jax.load_bank(tmp_path, learner, fresh))


def test_other_tasks_in_the_folder_are_refused(tmp_path: Path) -> None:
    learner, fresh = adapted()
    share_jax.save_bank(tmp_path, learner, learnt(learner, fresh, "first", "second"))
    for bank in (fresh, learnt(learner, fresh, "other")):
        with pytest.raises(TaskError, match=r"got tasks \['first', 'second'\]"):
            share_jax.save_bank(tmp_path, learner, bank)


def test_the_same_call_again_is_taken_and_another_info_of_a_saved_task_is_not(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    for _ in range(2):
        share_jax.save_bank(tmp_path, learner, bank, infos={"first": {"shape": (1, 2)}})
    for name, info in (("first", {}), ("never learnt", {})):
        with pytest.raises(TaskError, match=f"info of a task: got .*'{name}', expected one of new tasks"):
            share_jax.save_bank(tmp_path, learner, bank, infos={name: info})


def test_what_can_be_known_in_advance_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first", "second")
    router = share_jax.add_task(share_jax.empty_router(6), "third", X, np.asarray(batches(0)[0]["labels"]))
    with pytest.raises(InputError, match="info of task 'second'"):
        share_jax.save_bank(tmp_path, learner, bank, infos={"second": {"accuracy": np.float32(0.5)}})
    with pytest.raises(TaskError, match="task of the router to save: got 'third'"):
        share_jax.save_bank(tmp_path, learner, bank, router=router)
    assert share_jax.load_bank(tmp_path, learner, fresh) is fresh


def test_other_variables_beside_the_parameters_are_another_model(tmp_path: Path) -> None:
    learner, fresh = adapted()
    for mean in (jnp.zeros(3), jnp.ones(3)):
        other = share_jax.Learner(learner.model, {**learner.base, "batch_stats": {"mean": mean}}, optax.adamw(1e-2))
        if not mean.any():
            share_jax.save_bank(tmp_path, other, fresh)
            assert share_jax.load_bank(tmp_path, other, fresh) is fresh
    for wrong in (other, learner):
        with pytest.raises(FormatError, match="checkpoint's fingerprint"):
            share_jax.load_bank(tmp_path, wrong, fresh)


def test_a_module_with_more_slots_takes_what_one_with_fewer_learnt(tmp_path: Path) -> None:
    learner, fresh = own(slots=2)
    bank = learnt(learner, fresh, "first", "second")
    share_jax.save_bank(tmp_path, learner, bank)
    larger, empty = own(slots=3)
    assert_same_answers(learner, bank, larger, share_jax.load_bank(tmp_path, larger, empty))


@dataclass(frozen=True)
class Tupled(share_jax.SharedA):
    """A method of one's own with a field that JSON gives back as a list."""

    cuts: tuple[int, ...] = (1, 2)


def test_a_method_of_ones_own_is_loaded_again(tmp_path: Path) -> None:
    learner, fresh = adapted(Tupled(rank=2))
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path, learner, bank)
    assert_same_answers(learner, bank, learner, share_jax.load_bank(tmp_path, learner, fresh))
    with pytest.raises(FormatError, match="checkpoint's method"):
        share_jax.load_bank(tmp_path, *adapted(Tupled(rank=2, cuts=(1, 3))))
    wrong: Any = ({1},)
    with pytest.raises(InputError, match=r"cuts of Tupled.*: got tuple, expected what JSON holds"):
        share_jax.save_bank(tmp_path / "other", *adapted.__wrapped__(Tupled(rank=2, cuts=wrong)))


def test_another_model_is_refused_either_way(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path, learner, bank)
    for other, empty in (adapted(seed=1), adapted(width=8), adapted(METHODS[1]), own()):
        with pytest.raises(FormatError, match="checkpoint's"):
            share_jax.load_bank(tmp_path, other, empty)
        with pytest.raises(FormatError, match="checkpoint's"):
            share_jax.save_bank(tmp_path, other, learnt(other, empty, "first", "second"))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    learner, fresh = adapted()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FormatError, match="a folder with content"):
        share_jax.save_bank(tmp_path, learner, fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(FormatError, match="manifest"):
        share_jax.load_bank(tmp_path, learner, fresh)
    with pytest.raises(FormatError, match="got a file, expected an empty folder"):
        share_jax.save_bank(tmp_path / "notes.txt", learner, fresh)
    with pytest.raises(SaveError, match="Not a directory, expected a folder to write in"):
        share_jax.save_bank(tmp_path / "notes.txt" / "below", learner, fresh)


def test_a_module_with_too_few_slots_is_refused(tmp_path: Path) -> None:
    learner, fresh = own(slots=2)
    share_jax.save_bank(tmp_path, learner, learnt(learner, fresh, "first", "second"))
    with pytest.raises(InputError, match="task stack: got 1 slots, expected 2"):
        share_jax.load_bank(tmp_path, *own(slots=1))


def test_only_a_fresh_bank_is_filled(tmp_path: Path) -> None:
    learner, fresh = adapted()
    bank = learnt(learner, fresh, "first")
    share_jax.save_bank(tmp_path, learner, bank)
    with pytest.raises(InputError, match="fresh bank: got 1 learnt tasks"):
        share_jax.load_bank(tmp_path, learner, bank)


def test_a_folder_that_is_held_is_not_written(tmp_path: Path) -> None:
    learner, fresh = adapted()
    with lock.hold(tmp_path), pytest.raises(BusyError):
        share_jax.save_bank(tmp_path, learner, fresh)
    share_jax.save_bank(tmp_path, learner, fresh)


def test_damage_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    learner, fresh = adapted()
    share_jax.save_bank(tmp_path, learner, learnt(learner, fresh, "first"))
    victim = max((tmp_path / "tasks").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x00")
    with pytest.raises(FormatError, match=r"task 'first'"):
        share_jax.load_bank(tmp_path, learner, fresh)
