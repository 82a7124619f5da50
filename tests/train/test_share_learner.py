"""`ShareLearner` through its public face: the properties of the method, its bound, meshes, and resuming."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import PARAMS, X, adapted, batches, right, share_learner, started

import share_jax
from share_jax.adapters.factors import Factors
from share_jax.checkpoint.inflight_folder import InflightFolder
from share_jax.checkpoint.share_tasks import load_share_bank, save_share_task
from share_jax.errors import InputError, LimitError, TaskError
from share_jax.layers.kernel_trees import by_kernel
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.serving import adapter_of
from share_jax.subspace.state import factors_of
from share_jax.train.loop import Hooks
from share_jax.train.share_learner import ShareLearner, TrainedTask
from share_jax.trees import flat

TASKS, STEPS = 3, 50
PATH = "layers_0/kernel"


def learnt(made: ShareLearner, tasks: int = TASKS) -> tuple[Any, dict[str, TrainedTask]]:
    """The bank after some tasks, and each as it was trained."""
    bank, kept = started(made, 1), {}
    for index in range(tasks):
        name = f"task {index}"
        kept[name] = made.train(bank, name, batches(index, STEPS), jax.random.key(0), Hooks())
        bank = made.merge(bank, name, kept[name])
    return bank, kept


@pytest.fixture(scope="module")
def wide() -> tuple[ShareLearner, Any, dict[str, TrainedTask]]:
    """More columns than all tasks have together: nothing is lost."""
    made = share_learner(num_basis=8, pseudo_rank=2, phi=2)
    return (made, *learnt(made))


@pytest.fixture(scope="module")
def narrow() -> tuple[ShareLearner, Any, dict[str, TrainedTask]]:
    """Fewer: old tasks are changed, within their bounds."""
    made = share_learner(num_basis=4, pseudo_rank=2, phi=2, coefficients_from=3)
    return (made, *learnt(made, TASKS + 1))


def test_every_task_is_learnt_and_stays_so(wide) -> None:
    made, bank, _ = wide
    assert [right(made, bank, f"task {index}", index) for index in range(TASKS)] == pytest.approx([1] * TASKS, abs=0.1)
    assert bank.capacity == 4


def test_a_target_without_directions_is_learnt_on_and_leaves_as_a_set(tmp_path: Path) -> None:
    """One whose gradient was zero in every task so far."""
    made = replace(share_learner(num_basis=4, pseudo_rank=2), start_from="last")
    kept = made.train(started(made, 1), "one", batches(0, 5), jax.random.key(0), Hooks())
    first = min(kept.adapter)
    still = {name: replace(x, lora_b=0 * x.lora_b) if name == first else x for name, x in kept.adapter.items()}
    bank = made.merge(started(made, 1), "one", kept._replace(adapter=still))
    assert bank.state.layers[first].num_basis == (0, 0)
    share_jax.export_set(bank, made.model, tmp_path / "set")
    after = made.learn(bank, "two", batches(1, 5))
    assert min(after.state.layers[first].num_basis) > 0


@pytest.mark.parametrize("phi", [1, 2, 3])
def test_a_task_may_start_from_the_last_ones_update(wide, phi: int) -> None:
    """Or from its largest singular values; directions beyond its rank learn, too."""
    made, bank, _ = wide
    warm = replace(made, start_from="last", phi=phi)
    state = warm.begin(bank, jax.random.key(0))
    parts = by_kernel(made.model.targets, state.shared), by_kernel(made.model.targets, state.slot)
    last = factors_of(bank.state, bank.names[-1])
    for name, factors in adapter_of(warm.phases[1].model.method, *parts).items():
        u, values, vt = np.linalg.svd(np.asarray(last[name].lora_a @ last[name].lora_b) * last[name].scale)
        want = (u[:, :phi] * values[:phi]) @ vt[:phi]
        np.testing.assert_allclose(factors.lora_a @ factors.lora_b, want, atol=1e-5)
    before = jax.tree.map(np.asarray, bank.tasks)
    kept = warm.train(bank, "warm", batches(0, 5), jax.random.key(0), Hooks())
    after = warm.merge(bank, "warm", kept)
    assert np.isfinite(after.report()["warm"].error_bound)
    for mine, old in zip(jax.tree.leaves(bank.tasks), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(mine, old)


def test_coefficients_may_start_from_the_last_ones() -> None:
    made = share_learner(num_basis=4, pseudo_rank=2, phi=2, coefficients_from=1, start_from="last")
    bank, _ = learnt(made, 1)
    slot, last = flat(made.begin(bank, jax.random.key(0)).slot), flat(bank.tasks)
    for path in slot:
        alike = np.array_equal(slot[path], last[path][0])
        assert alike == ("coeff" in path), path


def test_another_start_is_refused() -> None:
    with pytest.raises(InputError, match="start_from: got 'best', expected zero or last"):
        share_learner(start_from="best")


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_bases_are_orthonormal_and_errors_within_their_bounds(name: str, request: pytest.FixtureRequest) -> None:
    _, bank, kept = request.getfixturevalue(name)
    for layer in bank.state.layers.values():
        for basis in (layer.basis_a, layer.basis_b):
            np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)
    for task, report in bank.report().items():
        error = relative_distance(kept[task].adapter, factors_of(bank.state, task))
        assert error <= report.error_bound
        assert name == "narrow" or error < 1e-5


def test_what_fits_is_kept_whole_and_answers_as_it_was_trained(wide) -> None:
    made, bank, kept = wide
    for name, trained in kept.items():
        params = {**PARAMS, "layers_0": dict(PARAMS["layers_0"])}
        factors = trained.adapter[PATH]
        params["layers_0"]["kernel"] = PARAMS["layers_0"]["kernel"] + factors.lora_a @ factors.lora_b
        params["layers_2"] = {path.rpartition("/")[2]: leaf for path, leaf in trained.heads.items()}
        want = made.model.model.apply({"params": params}, X)
        np.testing.assert_allclose(made.predict(bank, name, X), want, atol=1e-5)


def test_a_cut_merge_projects_what_was_trained_on_the_new_bases(narrow) -> None:
    _, bank, kept = narrow
    layer = bank.state.layers[PATH]
    factors = kept["task 3"].adapter[PATH]
    projected = layer.basis_a @ (layer.basis_a.T @ factors.lora_a @ factors.lora_b @ layer.basis_b) @ layer.basis_b.T
    own = factors_of(bank.state, "task 3")[PATH]
    np.testing.assert_allclose(own.lora_a @ own.lora_b, projected, atol=1e-5)


def test_coefficients_alone_train_nothing_but_the_slot_and_stay_in_the_span(narrow) -> None:
    made, bank, kept = narrow
    assert made.phase(3).model.method == made.model.method
    assert made.phase(2).model.method != made.model.method
    before, _ = learnt(made, TASKS)
    layer, factors = before.state.layers[PATH], kept["task 3"].adapter[PATH]
    update = factors.lora_a @ factors.lora_b
    np.testing.assert_allclose(layer.basis_a @ (layer.basis_a.T @ update), update, atol=1e-5)
    np.testing.assert_allclose(update @ layer.basis_b @ layer.basis_b.T, update, atol=1e-5)
    for name in before.names:  # what is in the span already moves no old task
        moved = relative_distance(factors_of(before.state, name), factors_of(bank.state, name))
        assert moved < 1e-5


def test_merging_what_is_there_already_changes_no_task(wide) -> None:
    made, bank, kept = wide
    again = made.merge(bank, "again", kept["task 1"])
    np.testing.assert_allclose(made.predict(again, "again", X), made.predict(bank, "task 1", X), atol=1e-5)
    for name in bank.names:
        np.testing.assert_allclose(made.predict(again, name, X), made.predict(bank, name, X), atol=1e-5)


def test_training_starts_at_the_base_model_and_moves_copies_alone(wide) -> None:
    made, bank, _ = wide
    state = {n: np.array(leaf) for n, leaf in vars(bank.state.layers[PATH]).items() if isinstance(leaf, np.ndarray)}
    stack = jax.tree.map(np.array, bank.tasks)
    phase = made.phase(TASKS)
    begun = made.begin(bank, jax.random.key(5))
    base = made.model.model.apply({"params": PARAMS}, X)
    np.testing.assert_array_equal(phase.forward(made.placed, begun.shared, begun.slot, X, None), base)
    first = {path: np.array(leaf) for path, leaf in flat(begun.slot).items()}
    np.testing.assert_array_equal(first["layers_0/basis_a"], bank.state.layers[PATH].basis_a[:, :2])
    now = begun
    for batch in batches(3, 2):
        now, _ = phase.step(now, made.placed, batch)
    assert all(np.any(np.asarray(leaf) != first[path]) for path, leaf in flat(now.slot).items())
    made.train(bank, "more", batches(3, 3), jax.random.key(0), Hooks())
    for name, leaf in state.items():
        np.testing.assert_array_equal(getattr(bank.state.layers[PATH], name), leaf)
    jax.tree.map(np.testing.assert_array_equal, bank.tasks, stack)


def test_a_batch_of_different_tasks_is_answered_as_each_alone(wide) -> None:
    made, bank, _ = wide
    ids = np.arange(len(X)) % TASKS
    mixed = np.asarray(made.predict(bank, ids, X))
    alone = np.stack([np.asarray(made.predict(bank, index, X)) for index in range(TASKS)])
    np.testing.assert_allclose(mixed, alone[ids, np.arange(len(X))], atol=1e-5)


def test_a_merge_past_the_limit_is_refused_or_grows() -> None:
    grown = share_learner(num_basis=8, pseudo_rank=2, phi=2, k=2, max_error=0.05)
    bank, kept = learnt(grown, 2)
    assert max(bank.state.layers[PATH].num_basis) > 2
    for name, report in bank.report().items():
        assert relative_distance(kept[name].adapter, factors_of(bank.state, name)) <= report.error_bound <= 0.05
    refusing = share_learner(num_basis=8, pseudo_rank=2, phi=2, k=2, max_error=0.05, on_limit="refuse")
    first = refusing.merge(started(refusing), "task 0", kept["task 0"])
    with pytest.raises(LimitError, match=r"error limit: got k up to 2, expected k up to \d"):
        refusing.merge(first, "task 1", kept["task 1"])
    assert first.names == ("task 0",)


def test_a_mesh_of_eight_devices_learns_what_one_device_learns(wide) -> None:
    made, bank, _ = wide
    layout = layout_of(make_mesh(MeshShape(2, 2, 2)), PARAMS, made.model)
    on_mesh = share_learner(num_basis=8, pseudo_rank=2, phi=2, layout=layout)
    other, _ = learnt(on_mesh)
    for name in bank.names:  # updates, not singular vectors
        assert relative_distance(factors_of(bank.state, name), factors_of(other.state, name)) < 5e-3
        np.testing.assert_allclose(on_mesh.predict(other, name, X[:5]), made.predict(bank, name, X[:5]), atol=2e-2)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_stream_that_is_killed_and_loaded_ends_with_the_same_bits(wide, tmp_path: Path) -> None:
    made, _, _ = wide
    bank = whole = started(made, 1)

    def broken_off(own: list) -> Any:
        yield from own[:7]
        raise Killed

    for index in range(TASKS):
        name, own = f"task {index}", batches(index, 12)
        whole = made.learn(whole, name, own)
        inflight = InflightFolder(tmp_path, made, bank)
        with pytest.raises(Killed):
            made.learn(bank, name, broken_off(own), inflight=inflight, save_every=3)
        save_share_task(tmp_path, made, made.learn(bank, name, own, inflight=inflight))
        bank = load_share_bank(tmp_path, made, started(made, 1))
        assert bank.names == whole.names
        assert bank.report() == whole.report()
    for index in range(TASKS):
        np.testing.assert_array_equal(made.predict(bank, index, X), made.predict(whole, index, X))
    with pytest.raises(TaskError, match="save after every task"):
        save_share_task(tmp_path, made, bank)


def test_the_bank_is_saved_served_and_routed_as_any_other(wide, tmp_path: Path) -> None:
    made, bank, _ = wide
    share_jax.save_bank(tmp_path, made, bank)
    served = share_jax.Learner(made.model, made.base, made.transform)
    back = share_jax.load_bank(tmp_path, served, started(served))
    router = share_jax.empty_router(X.shape[1])
    for index, name in enumerate(bank.names):
        router = share_jax.add_task(router, name, X + 10 * np.eye(X.shape[1])[index], np.zeros(len(X), np.int32))
    ids = share_jax.route(share_jax.routing_rule(router, bank.names), jnp.asarray(X + 10 * np.eye(X.shape[1])[1]))
    np.testing.assert_array_equal(ids, 1)
    np.testing.assert_array_equal(served.predict(back, ids, X), made.predict(bank, ids, X))


def test_a_model_of_another_method_and_numbers_out_of_range_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"model of the ShareLearner: got .* expected one with Share"):
        ShareLearner(adapted(), {"params": PARAMS}, share_learner().transform)
    with pytest.raises(InputError, match="k: got 9, expected 1 to num_basis = 8"):
        share_learner(num_basis=8, k=9)
    for name, wrong in (
        ("max_error", float("nan")), ("max_error", -1), ("max_error", "0.05"), ("on_limit", "Refuse"), ("k", 2.5),
        ("coefficients_from", -1), ("coefficients_from", 1.5), ("accumulate", 2.0),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: got"):
            share_learner(**{name: wrong})
    made = share_learner(num_basis=2, pseudo_rank=2, max_error=1e-3)
    pair = Factors(np.eye(8, 2, dtype=np.float32), np.eye(2, 16, dtype=np.float32))
    other = Factors(np.eye(8, 2, -2, dtype=np.float32), np.eye(2, 16, 2, dtype=np.float32))
    heads = {path: leaf for path, leaf in flat(PARAMS).items() if path.startswith("layers_2")}
    bank = made.merge(started(made), "a", TrainedTask({PATH: pair}, heads))
    with pytest.raises(InputError, match="serve with a larger num_basis"):
        made.merge(bank, "b", TrainedTask({PATH: other}, heads))
