"""Task arithmetic and likeness against dense computations written out element by element."""

import numpy as np
import pytest

from share_jax.adapters import arithmetic
from share_jax.adapters.arithmetic import balance
from share_jax.adapters.factors import Factors
from share_jax.adapters.similarity import clusters, cosine, overlap
from share_jax.errors import InputError
from share_jax.subspace import error_bounds

D = (12, 9)


def task(seed, r=2, targets=("q",), scale=0.7):
    rng = np.random.default_rng(seed)
    return {
        n: Factors(
            rng.standard_normal((D[0], r)).astype(np.float32), rng.standard_normal((r, D[1])).astype(np.float32), scale
        )
        for n in targets
    }


def dense(f):
    return f.scale * np.asarray(f.lora_a, np.float64) @ np.asarray(f.lora_b, np.float64)


def test_weighted_sum_is_the_sum_of_updates():
    x, y = task(0, targets=("q", "v")), task(1, r=3)
    out = arithmetic.weighted_sum([x, y], [0.3, -2.0])
    np.testing.assert_allclose(dense(out["q"]), 0.3 * dense(x["q"]) - 2 * dense(y["q"]), atol=1e-5)
    np.testing.assert_allclose(dense(out["v"]), 0.3 * dense(x["v"]), atol=1e-5)
    assert out["q"].rank == 5
    cut = arithmetic.weighted_sum([x, y], [0.3, -2.0], rank=2)
    s = np.linalg.svd(dense(out["q"]), compute_uv=False)
    assert cut["q"].rank == 2
    np.testing.assert_allclose(
        np.linalg.norm(dense(cut["q"]) - dense(out["q"])), np.sqrt(np.sum(s[2:] ** 2)), rtol=1e-4
    )


def test_ties_by_its_definition():
    tasks, weights = [task(s) for s in range(3)], [1.0, 0.5, 2.0]
    out = dense(arithmetic.ties(tasks, weights, density=0.25, rank=9)["q"])
    kept = []
    for w, t in zip(weights, tasks, strict=True):
        x = w * dense(t["q"])
        threshold = np.sort(np.abs(x), axis=None)[-round(0.25 * x.size)]
        kept.append(np.where(np.abs(x) >= threshold * (1 - 1e-6), x, 0))
    want = np.zeros(D)
    for i in np.ndindex(D):
        column = np.array([x[i] for x in kept])
        same = [v for v in column if v != 0 and np.sign(v) == np.sign(column.sum())]
        want[i] = np.mean(same) if same else 0
    np.testing.assert_allclose(out, want, atol=1e-4)


def test_ties_of_one_task_at_full_density_is_the_task():
    t = task(0)
    np.testing.assert_allclose(dense(arithmetic.ties([t], [1.0], density=1.0)["q"]), dense(t["q"]), atol=1e-5)


def test_dare_drops_and_rescales_without_bias():
    tasks, weights = [task(0), task(1)], [1.0, -0.5]
    whole = dense(arithmetic.weighted_sum(tasks, weights)["q"])
    outs = [dense(arithmetic.dare(tasks, weights, drop_rate=0.5, seed=i, rank=9)["q"]) for i in range(300)]
    spread = np.std(outs, axis=0) / np.sqrt(300)
    assert np.all(np.abs(np.mean(outs, axis=0) - whole) < 5 * spread + 1e-5)
    one = dense(arithmetic.dare([tasks[0]], [1.0], drop_rate=0.75, seed=0, rank=9)["q"])
    x = dense(tasks[0]["q"])
    dropped = np.abs(one) < 1e-4
    assert 0.6 < dropped.mean() < 0.9
    np.testing.assert_allclose(one[~dropped], 4 * x[~dropped], atol=1e-4)
    none = arithmetic.dare(tasks, weights, drop_rate=0.0, seed=0)
    np.testing.assert_allclose(dense(none["q"]), whole, atol=1e-5)


def test_arithmetic_refuses_what_does_not_fit():
    t = task(0)
    for call in (
        lambda: arithmetic.weighted_sum([t], [1.0, 2.0]),
        lambda: arithmetic.weighted_sum([], []),
        lambda: arithmetic.ties([t], [1.0], density=0.0),
        lambda: arithmetic.dare([t], [1.0], drop_rate=1.0, seed=0),
        lambda: arithmetic.ties([t], [1.0], density=0.5, rank=0),
        lambda: balance(t, rank=0),
    ):
        with pytest.raises(InputError):
            call()


def test_cosine_is_that_of_the_dense_updates():
    tasks = [task(0, targets=("q", "v")), task(1, r=3, targets=("v", "q")), task(2), task(3, scale=0.0)]

    def vector(t):
        return np.concatenate([dense(t[n]).ravel() if n in t else np.zeros(np.prod(D)) for n in ("q", "v")])

    got = cosine(tasks)
    for i in range(3):
        for j in range(3):
            x, y = vector(tasks[i]), vector(tasks[j])
            np.testing.assert_allclose(got[i, j], x @ y / np.linalg.norm(x) / np.linalg.norm(y), atol=1e-6)
    np.testing.assert_array_equal(got[3], 0)


def test_overlap_of_spaces():
    x = task(0)
    turned = {"q": Factors(x["q"].lora_a @ np.array([[2, 1], [0, 1]], np.float32), x["q"].lora_b)}
    within = {"q": Factors(x["q"].lora_a[:, :1], x["q"].lora_b[:1])}
    got = overlap([x, turned, within, task(1)])
    np.testing.assert_allclose(got[0, :3], 1, atol=1e-6)
    angles = []
    for side in (lambda f: np.asarray(f.lora_a), lambda f: np.asarray(f.lora_b).T):
        q = [np.linalg.qr(side(t["q"]).astype(np.float64))[0] for t in (x, task(1))]
        angles.append(np.mean(np.linalg.svd(q[0].T @ q[1], compute_uv=False) ** 2))
    np.testing.assert_allclose(got[0, 3], np.mean(angles), atol=1e-6)
    assert overlap([x, {"v": task(1)["q"]}])[0, 1] == 0


def test_clusters_are_the_blocks():
    like = np.full((5, 5), 0.1)
    for block in ([0, 3], [1, 2, 4]):
        like[np.ix_(block, block)] = 0.9
    assert clusters(like, 0.5) == [[0, 3], [1, 2, 4]]
    assert clusters(like, 0.05) == [[0, 1, 2, 3, 4]]
    assert clusters(like, 0.95) == [[0], [1], [2], [3], [4]]
    with pytest.raises(InputError):
        clusters(np.zeros((2, 3)), 0.5)


def test_distances_without_dense_products():
    x, y = task(0, targets=("q", "v")), task(1, r=3)
    got = error_bounds.update_distance(x, y)
    np.testing.assert_allclose(got["q"], np.linalg.norm(dense(x["q"]) - dense(y["q"])), rtol=1e-10)
    np.testing.assert_allclose(got["v"], np.linalg.norm(dense(x["v"])), rtol=1e-10)
    near = {"q": Factors(x["q"].lora_a, x["q"].lora_b, 0.7 * (1 + 1e-9))}
    np.testing.assert_allclose(error_bounds.relative_distance({"q": x["q"]}, near), 1e-9, rtol=1e-3)


def test_factors_refuse_what_is_no_adapter():
    a, b = np.ones((4, 2), np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match="multiply"):
        Factors(a.T, b)
    with pytest.raises(InputError, match="NaN"):
        Factors(a * np.float32(np.nan), b)
    with pytest.raises(InputError, match="scale"):
        Factors(a, b, float("inf"))
