"""The Learner: tasks are added one by one, what was learnt keeps its bits, and the bank grows."""

from dataclasses import replace
from functools import cache
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze
from jax import monitoring
from learning import two_layers

import share_jax
from share_jax.errors import InputError, TaskError
from share_jax.trees import flat
from share_jax.typing import TaskId

X = jax.random.normal(jax.random.key(1), (24, 6))


def labels(column: int) -> jax.Array:
    return (X[:, column] > 0).astype(jnp.int32)


def batches(column: int, steps: int = 40) -> list:
    return [{"inputs": X, "labels": labels(column)}] * steps


class Own(nn.Module):
    """A model of one's own, with three slots."""

    @nn.compact
    def __call__(self, x: jax.Array, task_id: TaskId) -> jax.Array:
        x = nn.gelu(share_jax.SharedLoRADense(16, num_tasks=3)(x, task_id))
        return share_jax.TaskHead(2, num_tasks=3)(x, task_id)


@cache
def own_learner() -> tuple[share_jax.Learner, share_jax.bank.bank.TaskBank]:
    variables = Own().init(jax.random.key(0), X, task_id=0)
    learner = share_jax.Learner(Own(), {"params": variables["params"]}, optax.adamw(1e-2))
    return learner, learner.start(variables)


@cache
def adapted_learner(slots: int, method: Any = None) -> tuple[share_jax.Learner, share_jax.bank.bank.TaskBank]:
    return two_layers(X, optax.adamw(1e-2), method=method, slots=slots)


def test_a_task_starts_from_a_copy_of_the_last_ones_adapter_with_a_fresh_head() -> None:
    learner, bank = adapted_learner(3)
    bank = learner.learn(bank, "first", batches(0, 3))
    kept = jax.tree.map(np.asarray, bank.tasks)
    warm = replace(learner, start_from="last")
    leaves, fresh = flat(warm.begin(bank, jax.random.key(0)).slot), flat(learner.begin(bank, jax.random.key(0)).slot)
    for path, leaf in leaves.items():
        like = fresh[path] if path.startswith("layers_2/") else flat(bank.tasks)[path][0]
        np.testing.assert_array_equal(leaf, like)
    assert any(not np.array_equal(leaves[path], fresh[path]) for path in leaves)
    after = warm.learn(bank, "second", batches(1, 3))
    for path, leaf in flat(kept).items():
        np.testing.assert_array_equal(flat(after.tasks)[path][0], leaf[0])
    with pytest.raises(InputError, match="start_from: got 'best', expected zero or last"):
        replace(learner, start_from="best")


@pytest.mark.parametrize("make", [own_learner, lambda: adapted_learner(3)])
def test_old_tasks_logits_stay_bitwise_equal_and_all_are_learnt(make) -> None:
    learner, bank = make()
    logits = {}
    for task in range(3):
        bank = learner.learn(bank, f"task {task}", batches(task))
        logits[task] = np.asarray(learner.predict(bank, f"task {task}", X))
        assert np.mean(logits[task].argmax(-1) == labels(task)) > 0.9
    for task, before in logits.items():
        np.testing.assert_array_equal(np.asarray(learner.predict(bank, f"task {task}", X)), before)


def test_what_is_shared_trains_in_the_first_task_and_never_again() -> None:
    learner, empty = adapted_learner(3)
    first = learner.learn(empty, "first", batches(0))
    second = learner.learn(first, "second", batches(1))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), empty.shared, first.shared)
    assert all(jax.tree.leaves(moved))
    chex.assert_trees_all_equal(first.shared, second.shared)


def test_the_bank_grows_by_doubling_and_keeps_what_was_learnt() -> None:
    learner, bank = adapted_learner(1)
    sizes, first = [], None
    for task in range(5):
        bank = learner.learn(bank, f"{task}", batches(task, 3))
        sizes.append(bank.capacity)
        first = np.asarray(learner.predict(bank, "0", X)) if first is None else first
        np.testing.assert_array_equal(np.asarray(learner.predict(bank, "0", X)), first)
    assert sizes == [1, 2, 4, 4, 8]


def test_a_full_stack_of_ones_own_module_is_refused_and_nothing_is_lost() -> None:
    learner, bank = own_learner()
    for task in range(3):
        bank = learner.learn(bank, f"{task}", batches(task, 1))
    with pytest.raises(InputError, match="task stack: got 3 slots, expected 4"):
        learner.learn(bank, "3", batches(0, 1))
    assert bank.names == ("0", "1", "2")


def test_bad_names_and_no_batches_are_refused_in_one_line() -> None:
    learner, bank = adapted_learner(3)
    bank = learner.learn(bank, "weather", batches(0, 1))
    with pytest.raises(TaskError, match="new task name: got 'weather'"):
        learner.learn(bank, "weather", batches(1, 1))
    with pytest.raises(TaskError, match="near matches: weather"):
        learner.predict(bank, "wether", X)
    with pytest.raises(InputError, match="batches of task 'x': got none"):
        learner.learn(bank, "x", [])


@pytest.mark.parametrize("make", [own_learner, lambda: adapted_learner(3)], ids=["own", "adapted"])
def test_params_without_their_name_and_variables_without_tasks_are_refused_in_one_line(make) -> None:
    learner, _ = make()
    for base in (learner.base["params"], None):
        if base is None and learner.model == Own():
            continue  # it may have no base at all
        with pytest.raises(InputError, match=r'base of the Learner: got .* expected a dict with "params"') as caught:
            share_jax.Learner(learner.model, base, optax.adamw(1e-2))
        assert "\n" not in str(caught.value)
    for variables in (learner.base, {}, None):
        with pytest.raises(InputError, match=r"variables: got .*expected a dict with 'tasks'") as caught:
            learner.start(variables)
        assert "\n" not in str(caught.value)


def test_a_module_of_which_tasks_own_everything_needs_no_base() -> None:
    head = share_jax.TaskHead(2, num_tasks=2)
    variables = head.init(jax.random.key(0), X, task_id=0)
    learner = share_jax.Learner(head, {}, optax.adamw(1e-2))
    bank = learner.learn(learner.start(variables), "a", batches(0, 2))
    assert learner.predict(bank, "a", X).shape == (24, 2)


@pytest.mark.parametrize("make", [own_learner, lambda: adapted_learner(1)], ids=["own", "adapted"])
def test_frozen_variables_are_learnt_as_plain_ones_are(make) -> None:
    learner, bank = make()
    frozen = learner.start(freeze({"shared": bank.shared, "tasks": bank.tasks}))
    assert jax.tree.structure(frozen.tasks) == jax.tree.structure(bank.tasks)
    for task in range(2):
        frozen = learner.learn(frozen, f"{task}", batches(task, 3))
        bank = learner.learn(bank, f"{task}", batches(task, 3))
    chex.assert_trees_all_equal((frozen.shared, frozen.tasks), (bank.shared, bank.tasks))
    learner = share_jax.Learner(learner.model, freeze(learner.base), learner.transform)
    np.testing.assert_array_equal(learner.predict(frozen, "1", X), learner.predict(bank, "1", X))


def test_a_head_transform_is_refused_where_it_would_change_nothing() -> None:
    learner, _ = own_learner()
    with pytest.raises(InputError, match=r"head_transform: got .*expected None for a module of one's own"):
        share_jax.Learner(learner.model, learner.base, optax.sgd(0.1), head_transform=optax.sgd(1.0))


def test_the_base_model_is_never_touched() -> None:
    learner, bank = adapted_learner(3)
    before = jax.tree.map(np.array, learner.base)
    learner.learn(bank, "a", batches(0))
    chex.assert_trees_all_equal(before, jax.tree.map(np.array, learner.base))


@pytest.mark.parametrize("method", [share_jax.SharedA(), share_jax.SeparateLoRA()], ids=lambda method: method.name)
def test_nothing_is_compiled_after_the_first_task(method) -> None:
    learner, bank = adapted_learner(4, method)
    bank = learner.learn(bank, "first", batches(0, 2))
    compiled: list[str] = []

    def heard(event: str, duration: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(heard)
    try:
        for name in ("second", "third"):
            bank = learner.learn(bank, name, batches(1, 2))
    finally:
        monitoring.unregister_event_duration_listener(heard)
    assert compiled == []
