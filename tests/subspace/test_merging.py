"""Merging under a limit, duplicates, removal, streaming and both geometries."""

import numpy as np
import pytest

from share_jax.adapters.factors import Factors
from share_jax.errors import InputError, LimitError, TaskError
from share_jax.subspace import error_bounds
from share_jax.subspace.accumulate import Sketch, absorb, sketch_of
from share_jax.subspace.error_curves import RESERVE
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.initialization import initialize, initialize_stream
from share_jax.subspace.merging import merge
from share_jax.subspace.projection import project
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.removal import recompress, remove
from share_jax.subspace.state import ShareState, factors_of, layer_size, relative, report, stack_size

TARGETS = ("q", "v")


def shared_tasks(count, *, d=(24, 18), r=3, shared=6, noise=0.02, seed=0):
    """Tasks whose columns come from `shared` directions per side, plus noise relative to the columns."""
    rng = np.random.default_rng(seed)
    pools = {n: [np.linalg.qr(rng.standard_normal((x, shared)))[0] for x in d] for n in TARGETS}
    out = {}
    for i in range(count):
        out[f"t{i}"] = {}
        for n in TARGETS:
            a, b = (pool @ rng.standard_normal((shared, r)) for pool in pools[n])
            a, b = (x + noise * np.linalg.norm(x) / np.sqrt(x.size) * rng.standard_normal(x.shape) for x in (a, b))
            out[f"t{i}"][n] = Factors(a.astype(np.float32), b.T.astype(np.float32), 0.5)
    return out


def dense(f):
    return f.scale * np.asarray(f.lora_a, np.float64) @ np.asarray(f.lora_b, np.float64)


def error(adapter, state, task):
    got = factors_of(state, task)
    lost = sum(np.sum((dense(f) - (dense(got[n]) if n in got else 0)) ** 2) for n, f in adapter.items())
    return np.sqrt(lost / sum(np.sum(dense(f) ** 2) for f in adapter.values()))


def best_error(tasks, k):
    """Mean error of the updates with the top-k of the dense float64 SVD of every balanced stack."""
    lost, size = dict.fromkeys(tasks, 0.0), dict.fromkeys(tasks, 0.0)
    for n in TARGETS:
        sides = {"a": [], "b": []}
        for adapter in tasks.values():
            u, s, vt = np.linalg.svd(dense(adapter[n]), full_matrices=False)
            r = adapter[n].rank
            sides["a"].append(u[:, :r] * np.sqrt(s[:r]))
            sides["b"].append(vt[:r].T * np.sqrt(s[:r]))
        q = {x: np.linalg.svd(np.concatenate(y, 1), full_matrices=False)[0][:, :k] for x, y in sides.items()}
        for t, adapter in tasks.items():
            w = dense(adapter[n])
            lost[t] += np.sum((w - q["a"] @ (q["a"].T @ w @ q["b"]) @ q["b"].T) ** 2)
            size[t] += np.sum(w**2)
    return np.mean([np.sqrt(lost[t] / size[t]) for t in tasks])


def mean_error(tasks, state):
    return np.mean([error(adapter, state, name) for name, adapter in tasks.items()])


@pytest.mark.parametrize("count", [10, 60])
def test_batch_error_is_the_best_possible_for_k(count):
    # 10 tasks take the dense path; 60 tasks have 180 columns, more than rows, and take the Gram matrix of the sketch
    tasks = shared_tasks(count)
    assert mean_error(tasks, initialize(tasks, Choice(k=6))) <= 1.001 * best_error(tasks, 6)


def test_wide_stack_on_the_randomised_path_is_the_best_possible_for_k():
    tasks = shared_tasks(60, d=(200, 180))
    assert mean_error(tasks, initialize(tasks, Choice(k=6))) <= 1.001 * best_error(tasks, 6)


def test_one_at_a_time_ends_within_one_percent_of_the_batch():
    tasks = shared_tasks(20)
    state = ShareState()
    for name, adapter in tasks.items():
        state = merge(state, {name: adapter}, Choice(k=6))
    assert mean_error(tasks, state) <= 1.01 * mean_error(tasks, initialize(tasks, Choice(k=6)))


def test_incremental_merge_agrees_with_the_dense_one():
    tasks = shared_tasks(12)
    start = initialize({n: tasks[n] for n in list(tasks)[:8]}, Choice(k=6))
    later = {n: tasks[n] for n in list(tasks)[8:]}
    fast = merge(start, later, Choice(k=6))
    slow = merge(start, later, Choice(k=6), path="dense")
    for name in tasks:
        assert error_bounds.relative_distance(factors_of(slow, name), factors_of(fast, name)) <= 1e-5


def test_an_exact_duplicate_changes_no_old_task():
    tasks = shared_tasks(8)
    state = initialize({n: tasks[n] for n in list(tasks)[:5]}, Choice(k=6))
    for name in list(tasks)[5:]:
        state = merge(state, {name: tasks[name]}, Choice(k=6))
    for source in ("t1", "t6"):
        after = merge(state, {"copy": tasks[source]}, Choice(k=6))
        for name in tasks:
            assert error_bounds.relative_distance(factors_of(state, name), factors_of(after, name)) <= 1e-5
        assert error(tasks[source], after, "copy") <= report(after)["copy"].error_bound
        assert report(after)["t0"].relative_change == 0


def test_a_duplicate_among_new_tasks_keeps_the_order_and_the_bound():
    tasks = shared_tasks(6)
    state = initialize({n: tasks[n] for n in ("t0", "t1", "t2")}, Choice(k=6))
    after = merge(state, {"copy": tasks["t1"], "t4": tasks["t4"]}, Choice(k=6))
    assert after.tasks == ("t0", "t1", "t2", "copy", "t4")
    assert error(tasks["t1"], after, "copy") <= report(after)["copy"].error_bound
    assert error(tasks["t4"], after, "t4") <= report(after)["t4"].error_bound


@pytest.mark.parametrize("limit", [0.5, 0.1, 0.01, 1e-3])
def test_max_error_holds_for_every_task(limit):
    tasks = shared_tasks(12)
    state = initialize(tasks, Choice(max_error=limit))
    assert all(error(adapter, state, name) <= limit for name, adapter in tasks.items())
    assert np.all(relative(state, "bound") <= limit)
    if limit > 0.03:
        # no more than needed: far fewer numbers than without any loss
        assert stack_size(state) < 0.7 * stack_size(initialize(tasks, Choice(relative_error=0.0)))


def test_max_error_holds_for_a_small_task_beside_a_large_one_in_a_layer_of_many_rows():
    tasks = shared_tasks(2, d=(20_000, 16), shared=3)
    tasks["t1"] = {n: Factors(0.01 * f.lora_a, 0.01 * f.lora_b, f.scale) for n, f in tasks["t1"].items()}
    state = initialize(tasks, Choice(max_error=0.01))
    assert all(error(adapter, state, name) <= 0.01 for name, adapter in tasks.items())


def test_max_error_beyond_float32_is_refused_and_the_least_that_is_named_holds():
    with pytest.raises(LimitError, match="float32") as refused:
        initialize(shared_tasks(3), Choice(max_error=1e-9))
    least = float(str(refused.value).partition("at least ")[2].partition(",")[0])
    initialize(shared_tasks(3), Choice(max_error=least))


@pytest.mark.parametrize("limit", [0.2, 0.03, 1e-3])
def test_a_limit_grows_k(limit):
    tasks = shared_tasks(6)
    state = initialize({n: tasks[n] for n in ("t0", "t1")}, Choice(max_error=limit / 4))
    for name in ("t2", "t3", "t4"):
        state = merge(state, {name: tasks[name]}, Choice(k=2), limit=limit)
        assert np.all(relative(state, "bound") <= limit)
    assert all(error(tasks[name], state, name) <= limit for name in state.tasks)


@pytest.mark.parametrize("first", [initialize, lambda tasks, choice: merge(ShareState(), tasks, choice)])
def test_a_cut_leaves_some_of_the_limit_to_later_merges(first):
    # with all of it used up, the rounding of a merge at full rank would be one too many
    tasks = list(shared_tasks(8, d=(60, 50), r=2, shared=40, noise=0.5).items())
    for limit in np.linspace(0.2, 0.5, 20):
        state = first(dict(tasks[:6]), Choice(max_error=limit))
        assert 0 < relative(state, "bound").max() <= limit * (1 - RESERVE)
        later = merge(state, dict(tasks[6:]), Choice(k=1), limit=limit)
        assert relative(later, "bound").max() <= limit


def test_a_set_that_has_less_left_than_that_may_still_be_cut():
    tasks = list(shared_tasks(9, d=(60, 50), r=2, shared=8, noise=1e-3).items())
    state = initialize(dict(tasks[:8]), Choice(k=6))
    limit = relative(state, "bound").max() * 1.005
    like = tasks[int(relative(state, "bound").argmin())][1]
    near = {name: Factors(f.lora_a, f.lora_b * np.float32(1e-3), f.scale) for name, f in like.items()}
    later = merge(state, {"near": near}, Choice(k=6), limit=limit)
    assert relative(later, "bound").max() <= limit
    assert {layer.num_basis for layer in later.layers.values()} == {(6, 6)}


def test_a_limit_refuses_and_says_the_k_that_it_needs():
    tasks = shared_tasks(4)
    start = initialize({"t0": tasks["t0"]}, Choice(relative_error=0.0))
    with pytest.raises(LimitError, match=r"got k up to 2, expected k up to (\d+)") as caught:
        merge(start, {"t1": tasks["t1"]}, Choice(k=2), limit=0.01, on_limit="refuse")
    needed = int(str(caught.value).split("expected k up to ")[1].split()[0])
    grown = merge(start, {"t1": tasks["t1"]}, Choice(k=2), limit=0.01)
    assert needed == max(max(x.num_basis) for x in grown.layers.values())
    assert "\n" not in str(caught.value)


def test_a_limit_that_no_k_can_hold_is_refused():
    tasks = shared_tasks(3)
    lossy = initialize({n: tasks[n] for n in ("t0", "t1")}, Choice(k=2))
    with pytest.raises(LimitError, match="even at full rank"):
        merge(lossy, {"t2": tasks["t2"]}, Choice(k=4), limit=1e-3)


def test_streaming_equals_the_batch_in_any_chunks(monkeypatch):
    monkeypatch.setattr("share_jax.subspace.initialization.BLOCK_BYTES", 0)
    tasks = shared_tasks(30)
    whole = initialize(tasks, Choice(k=6))
    seen = []
    streamed = initialize_stream(
        lambda: iter(tasks.items()), Choice(k=6), chunk=7, progress=lambda stage, done: seen.append((stage, done))
    )
    for name in tasks:
        assert error_bounds.relative_distance(factors_of(whole, name), factors_of(streamed, name)) <= 1e-5
    assert seen[-1] == ("coefficients", 30)


def test_streaming_refuses_a_name_twice_and_nothing_at_all():
    tasks = shared_tasks(1)
    with pytest.raises(InputError, match="twice"):
        initialize_stream(lambda: [*tasks.items(), *tasks.items()], Choice())
    with pytest.raises(InputError, match="none"):
        initialize({}, Choice())


def test_shapes_that_disagree_are_refused():
    one, other = shared_tasks(1)["t0"], shared_tasks(1, d=(24, 20))["t0"]
    with pytest.raises(InputError, match="one base model"):
        initialize({"one": one, "other": other}, Choice())
    with pytest.raises(InputError, match="one base model"):
        merge(initialize({"one": one}, Choice()), {"other": other}, Choice())


def test_projecting_leaves_bases_and_old_tasks_as_they_are():
    # property 8: frozen leaves are bitwise equal
    tasks = shared_tasks(6)
    state = initialize({n: tasks[n] for n in ("t0", "t1", "t2")}, Choice(k=6))
    after = project(state, {"t3": tasks["t3"]})
    for name, layer in state.layers.items():
        np.testing.assert_array_equal(after.layers[name].basis_a, layer.basis_a)
        np.testing.assert_array_equal(after.layers[name].coeff_b[:3], layer.coeff_b)
    assert error(tasks["t3"], after, "t3") <= report(after)["t3"].error_bound
    with pytest.raises(TaskError, match="no basis"):
        project(state, {"t4": {"other": tasks["t4"]["q"]}})


def test_removal_moves_no_other_task_and_recompression_shrinks():
    tasks = shared_tasks(4, noise=0.0, shared=12)
    state = initialize(tasks, Choice(relative_error=1e-4))
    less = remove(remove(remove(state, "t0"), "t2"), "t3")
    assert less.tasks == ("t1",)
    np.testing.assert_array_equal(less.layers["q"].coeff_a[0], state.layers["q"].coeff_a[1])
    small = recompress(less, Choice(relative_error=1e-4))
    assert small.layers["q"].num_basis == (3, 3)
    assert error(tasks["t1"], small, "t1") <= min(1e-3, report(small)["t1"].error_bound)
    with pytest.raises(TaskError, match="t0"):
        remove(less, "t0")


def test_recompression_counts_into_the_bound():
    tasks = shared_tasks(6, noise=0.2)
    state = initialize(tasks, Choice(max_error=1e-3))
    small = recompress(state, Choice(k=4))
    for name, adapter in tasks.items():
        assert error(adapter, small, name) <= report(small)[name].error_bound
    held = recompress(state, Choice(max_error=0.1))
    assert np.all(relative(held, "bound") <= 0.1)
    assert stack_size(held) < stack_size(state)
    with pytest.raises(LimitError):
        recompress(small, Choice(max_error=1e-4))


def test_a_target_without_tasks_goes_with_its_last_one():
    tasks = shared_tasks(2)
    state = initialize({"t0": tasks["t0"], "t1": {"q": tasks["t1"]["q"]}}, Choice(k=4))
    assert set(remove(state, "t0").layers) == {"q"}


def flat_tasks(count, *, kinds=2, d=(20, 16), r=4, seed=0):
    """Adapters that are combinations, factor by factor, of a few whole ones."""
    rng = np.random.default_rng(seed)
    whole = [[rng.standard_normal((x, r)) for x in d] for _ in range(kinds)]
    out = {}
    for i in range(count):
        weights = rng.standard_normal((kinds, 2))
        a = sum(w[0] * x[0] for w, x in zip(weights, whole, strict=True))
        b = sum(w[1] * x[1] for w, x in zip(weights, whole, strict=True))
        out[f"t{i}"] = {"q": Factors(a.astype(np.float32), b.T.astype(np.float32))}
    return out


def test_flat_geometry_is_exact_for_combinations_of_whole_adapters():
    tasks = flat_tasks(9)
    state = initialize_with(tasks, Choice(relative_error=1e-5), geometry="flat")
    layer = state.layers["q"]
    assert layer.num_basis == (2, 2)
    assert layer.coeff_a.shape == (9, 2, 1)
    for name, adapter in tasks.items():
        assert error(adapter, state, name) <= 1e-5
    merged = merge(state, {"new": flat_tasks(12)["t11"]}, Choice(relative_error=1e-5))
    assert merged.layers["q"].num_basis == (2, 2)
    assert error(flat_tasks(12)["t11"], merged, "new") <= 1e-4


def test_another_adapter_of_the_norm_of_a_task_that_was_lost_is_no_copy_of_it():
    draw = np.random.default_rng(0).standard_normal
    large = Factors(draw((30, 2)), draw((2, 20)))
    small = Factors(1e-3 * draw((30, 2)), draw((2, 20)))
    state = initialize({"large": {"q": large}, "small": {"q": small}}, Choice(k=2))
    assert report(state)["small"].error_bound > 0.5
    merged = merge(state, {"other": {"q": Factors(-small.lora_a, small.lora_b)}}, Choice(k=4))
    assert report(merged)["other"].error_bound < 1e-5


@pytest.mark.parametrize("choice", [Choice(k=2), Choice(max_error=0.05)])
def test_auto_takes_the_better_geometry_for_each_target(choice):
    flat, columns = flat_tasks(12, d=(24, 18)), shared_tasks(12, r=4, shared=5)
    tasks = {f"t{i}": {"flat": flat[f"t{i}"]["q"], "columns": columns[f"t{i}"]["q"]} for i in range(12)}
    auto = initialize_with(tasks, choice, geometry="auto")
    if choice.max_error is None:
        only = initialize(tasks, choice)
        assert auto.layers["columns"].geometry == "columns"
        assert layer_size(auto.layers["flat"]) <= layer_size(only.layers["flat"])
        assert np.sum(auto.layers["flat"].bound ** 2) <= np.sum(only.layers["flat"].bound ** 2)
    else:
        assert auto.layers["flat"].geometry == "flat"
        assert auto.layers["columns"].geometry == "columns"
        for geometry in ("flat", "columns"):
            assert stack_size(auto) <= stack_size(initialize_with(tasks, choice, geometry=geometry))
        assert all(error(adapter, auto, name) <= 0.05 for name, adapter in tasks.items())


def test_flat_geometry_takes_a_larger_rank_later():
    tasks = flat_tasks(3, r=2)
    wide = flat_tasks(1, r=4, seed=5)["t0"]
    state = merge(initialize_with(tasks, Choice(relative_error=0.0), geometry="flat"), {"wide": wide}, Choice())
    assert factors_of(state, "wide")["q"].rank == 4
    assert factors_of(state, "t0")["q"].rank == 2
    assert error(wide, state, "wide") <= report(state)["wide"].error_bound


def test_flat_bases_take_a_larger_rank_as_they_are():
    tasks, more = flat_tasks(4, r=2), flat_tasks(2, r=4, seed=5)
    mixed = {"wide": more["t0"], "narrow": flat_tasks(6, r=2)["t5"]}
    old = initialize_with(tasks, Choice(k=3), geometry="flat")
    state = project(old, mixed)
    assert [factors_of(state, name)["q"].rank for name in ("t0", "wide", "narrow")] == [2, 4, 2]
    for name in tasks:
        now, before = factors_of(state, name)["q"], factors_of(old, name)["q"]
        np.testing.assert_array_equal(now.lora_a, before.lora_a)
        np.testing.assert_array_equal(now.lora_b, before.lora_b)
    for name, adapter in mixed.items():
        assert error(adapter, state, name) <= report(state)[name].error_bound


@pytest.mark.slow
def test_the_case_of_the_issue():
    tasks = shared_tasks(50, d=(768, 768), r=8, shared=32)
    state = initialize(tasks, Choice(k=32))
    assert mean_error(tasks, state) <= 1.001 * best_error(tasks, 32)


def test_sketches_are_pure_and_the_same_in_one_go_or_batch_by_batch():
    adapters = list(shared_tasks(30).values())
    half = absorb(Sketch(), adapters[:15])
    before = {key: side.finished().gram for key, side in half.sides.items()}
    whole = absorb(half, adapters[15:])
    for key, side in half.sides.items():
        np.testing.assert_array_equal(side.finished().gram, before[key])
    other = sketch_of([adapters[:15], adapters[15:]])
    for key, side in whole.sides.items():
        columns = np.linalg.norm(side.finished().gram)
        np.testing.assert_allclose(other.sides[key].finished().gram, side.finished().gram, atol=1e-12 * columns)
