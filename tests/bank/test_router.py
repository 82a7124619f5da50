"""The task router: exact statistics, an independent oracle for its scores, and one line for everything it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import share_jax
from share_jax.bank.router import (
    Router,
    TaskStatistics,
    add_task,
    arrays_of,
    covariance,
    empty_router,
    remove_task,
    route,
    router_of,
    routing_rule,
    shrinkage,
    task_scores,
)
from share_jax.errors import InputError, TaskError

D = 6


def data(seed: int, tasks: int = 4, classes: int = 3, examples: int = 40) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Tasks of classes that overlap, in features of unlike scales that vary together."""
    draw = np.random.default_rng(seed)
    mix = draw.standard_normal((D, D)) * np.geomspace(0.01, 10, D)
    made = []
    for t in range(tasks):
        labels = draw.integers(classes + t % 2, size=examples + 7 * t).astype(np.int32)
        centres = 2 * draw.standard_normal((classes + t % 2, D))
        made.append((f"task {t}", ((centres[labels] + draw.standard_normal((len(labels), D))) @ mix), labels))
    return [(name, features.astype(np.float32), labels) for name, features, labels in made]


def filled(tasks: list, order: list[int] | None = None) -> Router:
    router = empty_router(D)
    for t in order or range(len(tasks)):
        router = add_task(router, *tasks[t])
    return router


def oracle(tasks: list, x: np.ndarray) -> np.ndarray:
    """(N, T) scores from the definition, all at once and in float64: no router, no whitening, no running sums."""
    rest, groups = [], []
    for t, (_, features, labels) in enumerate(tasks):
        whole = features.astype(np.float64)
        for c in np.unique(labels):
            own = whole[labels == c]
            groups.append((t, len(own) / len(whole), own.mean(axis=0)))
            rest.append(own - own.mean(axis=0))
    rest = np.concatenate(rest)
    n, p = len(rest) - len(groups), rest.shape[1]
    s = rest.T @ rest / n
    tr, tr2 = np.trace(s), np.trace(s @ s)
    rho = ((1 - 2 / p) * tr2 + tr**2) / ((n + 1 - 2 / p) * (tr2 - tr**2 / p))
    inverse = np.linalg.inv((1 - min(rho, 1)) * s + min(rho, 1) * tr / p * np.eye(p))
    out = np.zeros((len(x), len(tasks)))
    for t, weight, mean in groups:
        gap = x.astype(np.float64) - mean
        out[:, t] += weight * np.exp(-0.5 * np.einsum("ni,ij,nj->n", gap, inverse, gap))
    return np.log(out)


@pytest.mark.parametrize("seed", range(3))
def test_scores_and_ids_are_those_of_the_definition(seed: int) -> None:
    tasks = data(seed)
    x = np.concatenate([features[:20] for _, features, _ in tasks])
    rule = routing_rule(filled(tasks))
    want = oracle(tasks, x)
    np.testing.assert_allclose(task_scores(rule, x), want, rtol=2e-5, atol=2e-4)
    gap = np.diff(np.sort(want, axis=1)[:, -2:], axis=1)[:, 0]
    np.testing.assert_array_equal(np.asarray(route(rule, x))[gap > 1e-3], want.argmax(axis=1)[gap > 1e-3])


def test_it_finds_most_tasks_where_the_classes_are_apart_and_one_mean_per_task_finds_fewer() -> None:
    draw = np.random.default_rng(0)
    centres = 4 * draw.standard_normal((4, 8, D))  # eight classes a task: their mean says little
    tasks, right = [], {True: 0, False: 0}
    for t in range(4):
        labels = np.repeat(np.arange(8), 30)
        tasks.append((f"{t}", centres[t][labels] + draw.standard_normal((240, D)), labels))
    for by_class in right:
        router = empty_router(D)
        for name, features, labels in tasks:
            router = add_task(router, name, features, labels if by_class else None)
        rule = routing_rule(router)
        for t in range(4):
            x = np.repeat(centres[t], 10, axis=0) + draw.standard_normal((80, D))
            right[by_class] += int(np.sum(np.asarray(route(rule, x)) == t))
    assert right[True] > 0.9 * 320
    assert right[False] < 0.7 * 320


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(4)))
def test_the_order_of_the_tasks_does_not_matter(seed: int, order: list[int]) -> None:
    tasks = data(seed)
    straight, other = filled(tasks), filled(tasks, order)
    scale = np.abs(straight.scatter).max()
    np.testing.assert_allclose(other.scatter, straight.scatter, rtol=1e-12, atol=1e-12 * scale)
    assert other.freedom == straight.freedom
    for name, own in straight.tasks.items():
        np.testing.assert_array_equal(other.tasks[name].means, own.means)
        np.testing.assert_array_equal(other.tasks[name].counts, own.counts)
    x, names = tasks[0][1][:10], straight.names
    first, second = (task_scores(routing_rule(router, names), x) for router in (straight, other))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-4)


def test_a_new_task_changes_no_mean_of_another_and_old_routers_stay_as_they_are() -> None:
    tasks = data(0)
    before = filled(tasks, [0, 1])
    kept = {name: own.means.copy() for name, own in before.tasks.items()}
    scatter = before.scatter.copy()
    after = add_task(before, *tasks[2])
    assert before.names == ("task 0", "task 1")
    np.testing.assert_array_equal(before.scatter, scatter)
    for name, means in kept.items():
        np.testing.assert_array_equal(after.tasks[name].means, means)
    assert not np.array_equal(after.scatter, scatter)


def test_removing_a_task_moves_no_other_score_by_a_bit() -> None:
    tasks = data(1)
    router, x = filled(tasks), tasks[3][1]
    names = ("task 0", "task 2", "task 3")
    left = remove_task(router, "task 1")
    assert left.names == names
    np.testing.assert_array_equal(task_scores(routing_rule(left), x), task_scores(routing_rule(router, names), x))
    assert np.asarray(route(routing_rule(left), x)).max() <= 2
    assert add_task(left, *tasks[1]).names == (*names, "task 1")
    with pytest.raises(TaskError, match="task of the router: got 'task 1', expected one of the router's 3 tasks"):
        remove_task(left, "task 1")


def test_ids_follow_the_names_that_are_asked_for() -> None:
    tasks = data(2)
    router, x = filled(tasks), tasks[0][1]
    names = ("task 3", "task 1", "task 0", "task 2")
    there, here = route(routing_rule(router, names), x), route(routing_rule(router), x)
    assert there.dtype == jnp.int32
    assert [names[i] for i in np.asarray(there)] == [router.names[i] for i in np.asarray(here)]


def test_a_mixed_batch_is_routed_as_each_of_its_examples_and_within_jit_as_outside() -> None:
    tasks = data(3)
    rule = routing_rule(filled(tasks))
    x = np.concatenate([features[:5] for _, features, _ in tasks])
    whole = np.asarray(route(rule, x))
    np.testing.assert_array_equal(whole, [np.asarray(route(rule, row[None]))[0] for row in x])
    np.testing.assert_array_equal(whole, jax.jit(route)(rule, x))
    assert len(set(whole.tolist())) == 4


@pytest.mark.parametrize(
    "features",
    [
        np.ones((1, D)),
        np.ones((5, D)),
        np.zeros((5, D)),
        np.repeat(np.arange(3.0)[:, None], D, axis=1),
        np.random.default_rng(0).standard_normal((3, D)) * np.array([1, 0, 0, 0, 1, 1e-3]),
    ],
    ids=["one example", "five alike", "zeros", "one direction", "features that never vary"],
)
def test_degenerate_covariances_still_decide_by_the_nearest_mean(features: np.ndarray) -> None:
    router = add_task(add_task(empty_router(D), "a", features), "b", features + 3)
    own = covariance(router)
    assert np.linalg.eigvalsh(own).min() > 0
    rule = routing_rule(router)
    np.testing.assert_array_equal(route(rule, features), np.zeros(len(features)))
    np.testing.assert_array_equal(route(rule, features + 3), np.ones(len(features)))


def test_the_shrinkage_is_within_its_bounds_and_falls_with_more_examples() -> None:
    draw = np.random.default_rng(0)
    scale = np.geomspace(1, 100, D)
    shares = []
    for n in (3, 30, 300, 3000):
        x = draw.standard_normal((n, D)) * scale
        shares.append(shrinkage(x.T @ x, n))
    assert all(1e-6 <= share <= 1 for share in shares)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-2
    assert shrinkage(np.zeros((D, D)), 0) == 1
    assert shrinkage(np.diag([1e12] + [0.0] * 5), 10**9) == 1e-6


def test_the_shrinkage_is_close_to_that_of_scikit_learn() -> None:
    """Which leaves 2/D out of the same formula (its documentation says so): the same but for terms of that order."""
    from sklearn.covariance import oas

    x = np.random.default_rng(1).standard_normal((80, 60)) * np.geomspace(1, 30, 60)
    _, theirs = oas(x, assume_centered=True)
    assert shrinkage(x.T @ x, 80) == pytest.approx(theirs, rel=2 / 60)


def test_arrays_bring_a_router_back_to_the_bit() -> None:
    router = filled(data(4))
    again = router_of(router.names, arrays_of(router))
    assert again.names == router.names
    assert again.freedom == router.freedom
    np.testing.assert_array_equal(again.scatter, router.scatter)
    x = data(4)[0][1]
    np.testing.assert_array_equal(task_scores(routing_rule(again), x), task_scores(routing_rule(router), x))
    assert router_of((), arrays_of(empty_router(D))).names == ()
    own = next(iter(router.tasks.values()))
    many = Router(router.scatter, 1, {f"t{i}": TaskStatistics(own.counts, own.means + i) for i in range(10_002)})
    back = router_of(many.names, arrays_of(many)).tasks["t1001"]
    np.testing.assert_array_equal(back.means, many.tasks["t1001"].means)


BAD = np.ones((4, D), np.float32)
BAD[2, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: empty_router(0), "features of a router: got 0"),
        (lambda r: empty_router(2.5), "features of a router: got 2.5"),
        (lambda r: add_task(r, "", np.ones((2, D))), "task for the router: got ''"),
        (lambda r: add_task(r, "task 0", np.ones((2, D))), "task for the router: got 'task 0'"),
        (
            lambda r: add_task(r, "new", np.ones((2, D + 1))),
            f"features of task 'new': got float64 of shape (2, {D + 1})",
        ),
        (lambda r: add_task(r, "new", np.ones((0, D))), "features of task 'new': got float64 of shape (0, 6)"),
        (lambda r: add_task(r, "new", np.ones(D)), "features of task 'new': got float64 of shape (6,)"),
        (lambda r: add_task(r, "new", [["x"] * D]), "features of task 'new': got <U1"),
        (lambda r: add_task(r, "new", BAD), "features of task 'new', example 2: got numbers that are not finite"),
        (lambda r: add_task(r, "new", np.ones((3, D)), [0, 1]), "labels of task 'new': got int64 of shape (2,)"),
        (lambda r: add_task(r, "new", np.ones((2, D)), [0.5, 1]), "labels of task 'new': got float64 of shape (2,)"),
        (lambda r: routing_rule(empty_router(D)), "tasks of the router: got none"),
        (lambda r: routing_rule(r, ["task 0", "task 9"]), "task of the router: got 'task 9'"),
        (lambda r: task_scores(routing_rule(r), np.ones((2, 3))), "features to route: got shape (2, 3)"),
        (lambda r: route(routing_rule(r), np.ones(D)), "features to route: got shape (6,)"),
        (lambda r: route(routing_rule(r), BAD), "features to route, example 2: got numbers that are not finite"),
        (lambda r: route(routing_rule(r), BAD * np.float32(1e38)), "features to route, example 0: got numbers"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(call, words: str) -> None:
    with pytest.raises((InputError, TaskError)) as caught:
        call(filled(data(0)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_within_jit_an_example_without_a_task_gets_an_id_that_answers_with_nan() -> None:
    rule = routing_rule(filled(data(0)))
    ids = np.asarray(jax.jit(route)(rule, BAD))
    assert ids[2] == -1
    assert (np.delete(ids, 2) >= 0).all()
    assert np.isnan(np.asarray(jax.jit(task_scores)(rule, BAD))[2]).all()


def test_the_public_names_are_these() -> None:
    assert share_jax.Router is Router
    assert share_jax.add_task is add_task
    assert share_jax.route is route
    assert share_jax.routing_rule is routing_rule
