"""The router in a checkpoint: saved with its tasks, back to the bit, and never taken for something else."""

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from stored import IDENTITY, files_below, harm, leaves

import share_jax
from share_jax.bank.router import Router, add_task, empty_router, remove_task, route, routing_rule
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint import repair
from share_jax.errors import FormatError, TaskError

D = 5


def examples(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((30, D)) + 5 * seed


def knowing(*names: str) -> Router:
    router = empty_router(D)
    for name in names:
        router = add_task(router, name, examples(ord(name)), np.arange(30) % 3)
    return router


def saved(root: Path) -> ckpt.Checkpoint:
    store = ckpt.create(root, IDENTITY)
    store = ckpt.save_task(store, "a", leaves(1), {}, shared=leaves(0), router=knowing("a"))
    return ckpt.save_task(store, "b", leaves(2), {}, router=knowing("a", "b"))


def assert_equal(got: Router, want: Router) -> None:
    assert got.names == want.names
    assert got.freedom == want.freedom
    assert got.scatter.dtype == np.float64
    np.testing.assert_array_equal(got.scatter, want.scatter)
    for name, own in want.tasks.items():
        np.testing.assert_array_equal(got.tasks[name].counts, own.counts)
        np.testing.assert_array_equal(got.tasks[name].means, own.means)


def test_a_router_is_saved_with_each_task_and_comes_back_to_the_bit(tmp_path: Path) -> None:
    store = saved(tmp_path / "run")
    again = ckpt.open_checkpoint(store.root, IDENTITY)
    assert_equal(ckpt.load_router(again), knowing("a", "b"))
    assert len(list((store.root / "router").iterdir())) == 1
    store = ckpt.save_task(again, "c", leaves(3), {})
    assert ckpt.load_router(store).names == ("a", "b")
    store = ckpt.save_router(store, add_task(ckpt.load_router(store), "c", examples(99), np.arange(30) % 3))
    assert_equal(ckpt.load_router(store), knowing("a", "b", "c"))
    store = ckpt.save_router(store, remove_task(ckpt.load_router(store), "b"))
    assert ckpt.load_router(ckpt.open_checkpoint(store.root)).names == ("a", "c")


def test_a_router_of_tasks_that_are_not_saved_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = saved(tmp_path / "run")
    with pytest.raises(TaskError, match="task of the router to save: got 'd'"):
        ckpt.save_task(store, "c", leaves(3), {}, router=knowing("a", "d"))
    again = ckpt.open_checkpoint(store.root)
    assert again.names == ("a", "b")
    assert len(list((store.root / "tasks").iterdir())) == 2
    assert_equal(ckpt.load_router(again), knowing("a", "b"))


def test_a_checkpoint_without_a_router_says_so(tmp_path: Path) -> None:
    store = ckpt.save_task(ckpt.create(tmp_path / "run", IDENTITY), "a", leaves(1), {})
    with pytest.raises(FormatError, match="the router: got nothing saved"):
        ckpt.load_router(store)


@pytest.mark.parametrize("harmed", ["truncate", "flip"])
def test_a_damaged_router_is_named_and_given_up_alone(tmp_path: Path, harmed: str) -> None:
    store = saved(tmp_path / "run")
    file = max(files_below(store.root / "router"), key=lambda path: path.stat().st_size)
    harm(file, harmed)
    with pytest.raises(FormatError, match="of the router: got other bytes"):
        ckpt.load_router(store)
    with pytest.raises(FormatError, match=r"of the router in .*; tasks that still load: 'a', 'b'"):
        repair.check(store)
    fixed = repair.repaired(store, repair.find_damage(store))
    assert fixed.names == ("a", "b")
    assert fixed.manifest.router is None
    assert repair.find_damage(ckpt.open_checkpoint(store.root, IDENTITY)) == ()


def test_a_task_that_is_given_up_takes_the_router_with_it(tmp_path: Path) -> None:
    store = saved(tmp_path / "run")
    harm(files_below(store.root / store.manifest.tasks["b"]["path"])[0], "flip")
    fixed = repair.repaired(store, repair.find_damage(store))
    assert fixed.names == ("a",)
    assert fixed.manifest.router is None
    assert not (store.root / "router").exists() or not list((store.root / "router").iterdir())


def test_chosen_ids_serve_a_mixed_batch_as_each_task_alone() -> None:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, task_id: jax.Array) -> jax.Array:
            x = nn.relu(share_jax.SharedLoRADense(8, num_tasks=2)(x, task_id))
            return share_jax.TaskHead(3, num_tasks=2)(x, task_id)

    model = Model()
    inputs = {name: examples(ord(name)).astype(np.float32) for name in "ab"}
    variables = model.init(jax.random.key(0), inputs["a"], task_id=0)
    learner = share_jax.Learner(model, {"params": variables["params"]}, optax.adamw(1e-2))
    bank = learner.start(variables)
    for name, x in inputs.items():
        bank = learner.learn(bank, name, [{"inputs": x, "labels": np.arange(30, dtype=np.int32) % 3}] * 2)
    rule = routing_rule(knowing("b", "a"), bank.names)
    mixed = np.concatenate([inputs["a"][:4], inputs["b"][:4]])
    ids = route(rule, mixed)
    np.testing.assert_array_equal(ids, [0] * 4 + [1] * 4)
    got = learner.predict(bank, ids, mixed)
    alone = np.concatenate([learner.predict(bank, name, inputs[name])[:4] for name in "ab"])
    np.testing.assert_allclose(got, alone, atol=1e-5)
