"""Properties 1 to 6 of the method, each under its own name; the oracle is numpy in float64."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import product_bound

from share_jax.adapters.arithmetic import balance
from share_jax.adapters.factors import Factors
from share_jax.subspace import error_bounds
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import ShareState, factors_of, report

QUICK = settings(deadline=None, max_examples=12, derandomize=True)
SHAPES = st.sampled_from([(9, 14), (16, 6), (12, 12)])
DTYPES = st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16])
LOSSLESS = Choice(relative_error=0.0)


def adapters(seed, shape, ranks, *, dtype=np.float32, targets=("q", "v"), scale=2.0, shared=None):
    """Tasks of the given ranks; with `shared`, their columns come from that many directions per side."""
    rng = np.random.default_rng(seed)
    d_in, d_out = shape
    pools = {n: (rng.standard_normal((d_in, shared)), rng.standard_normal((d_out, shared))) for n in targets if shared}
    out = {}
    for t, r in enumerate(ranks):
        out[f"t{t}"] = {}
        for n in targets:
            if shared:
                a, b = (pool @ rng.standard_normal((shared, r)) for pool in pools[n])
            else:
                a, b = rng.standard_normal((d_in, r)), rng.standard_normal((d_out, r))
            out[f"t{t}"][n] = Factors(a.astype(dtype), b.T.astype(dtype), scale)
    return out


def update(factors):
    a, b = np.asarray(factors.lora_a, np.float64), np.asarray(factors.lora_b, np.float64)
    return factors.scale * a @ b


def error(given, state, task):
    """Relative error of a task's whole adapter, by dense products."""
    got = factors_of(state, task)
    diff = sum(np.sum((update(f) - update(got[n])) ** 2) for n, f in given.items())
    return np.sqrt(diff / sum(np.sum(update(f) ** 2) for f in given.values()))


def stack(tasks, target, side):
    """The balanced stack by dense float64 SVDs."""
    out = []
    for adapter in tasks.values():
        u, s, vt = np.linalg.svd(update(adapter[target]), full_matrices=False)
        r = adapter[target].rank
        out.append((u if side == "a" else vt.T)[:, :r] * np.sqrt(s[:r]))
    return np.concatenate(out, axis=1)


def orthonormal(state: ShareState, atol=1e-5):
    for layer in state.layers.values():
        for basis in (layer.basis_a, layer.basis_b):
            np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=atol)


RANKS = st.sampled_from([(2,), (1, 3), (3, 3, 2), (2, 2, 2, 2, 2, 2)])


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, ranks=RANKS, dtype=DTYPES)
def test_property_1_full_rank_is_exact(seed, shape, ranks, dtype):
    tasks = adapters(seed, shape, ranks, dtype=dtype)
    state = initialize(tasks, LOSSLESS)
    for name, adapter in tasks.items():
        assert error(adapter, state, name) <= 1e-6
    for target, layer in state.layers.items():
        for side, k in zip("ab", layer.num_basis, strict=True):
            assert k == np.linalg.matrix_rank(stack(tasks, target, side), tol=1e-5)


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, ranks=RANKS, k=st.integers(1, 7))
def test_property_1_error_on_the_stack_is_the_discarded_squares(seed, shape, ranks, k):
    tasks = adapters(seed, shape, ranks)
    state = initialize(tasks, Choice(k=k))
    rng = np.random.default_rng(seed)
    for target, layer in state.layers.items():
        for side, basis in (("a", layer.basis_a), ("b", layer.basis_b)):
            x = stack(tasks, target, side)
            s = np.linalg.svd(x, compute_uv=False)
            kept = basis.shape[1]
            assert kept == min(k, np.linalg.matrix_rank(x))
            lost = np.sum((x - basis @ (basis.T.astype(np.float64) @ x)) ** 2)
            assert abs(lost - np.sum(s[kept:] ** 2)) <= 1e-5 * np.sum(s**2)
            other = np.linalg.qr(rng.standard_normal((x.shape[0], kept)))[0]
            assert lost <= np.sum((x - other @ (other.T @ x)) ** 2) + 1e-5 * np.sum(s**2)


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, r=st.integers(1, 5), size=st.floats(1e-3, 2))
def test_property_2_product_bound(seed, shape, r, size):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((d, r)) for d in shape)
    a2, b2 = (x + size * rng.standard_normal(x.shape) for x in (a, b))
    measured = np.linalg.norm(a @ b.T - a2 @ b2.T)
    assert measured <= product_bound(a, b, a2, b2) * (1 + 1e-12)
    np.testing.assert_allclose(np.sqrt(error_bounds.squared_change(a, b, a2, b2)), measured, rtol=1e-10)
    np.testing.assert_allclose(np.sqrt(error_bounds.squared_distance(a, b, a2, b2)), measured, rtol=1e-5)


@QUICK
@given(
    seed=st.integers(0, 999),
    shape=SHAPES,
    first=st.sampled_from([(2,), (2, 3), (2, 2, 2)]),
    later=st.sampled_from([(1,), (3, 1, 2), (2, 2, 2, 2, 2, 2)]),
    dtype=DTYPES,
    k=st.integers(1, 8),
    geometry=st.sampled_from(["columns", "flat"]),
)
def test_property_2_measured_error_is_never_above_the_chain_bound(seed, shape, first, later, dtype, k, geometry):
    tasks = adapters(seed, shape, (*first, *later), dtype=dtype)
    names = list(tasks)
    state = initialize_with({n: tasks[n] for n in names[: len(first)]}, Choice(k=k), geometry=geometry)
    for name in names[len(first) :]:
        before = {n: factors_of(state, n) for n in state.tasks}
        state = merge(state, {name: tasks[name]}, Choice(k=k))
        shown = report(state)
        for n in state.tasks:
            assert error(tasks[n], state, n) <= shown[n].error_bound
            if n in before:
                size = error_bounds.total(error_bounds.update_norm(tasks[n]))
                moved = error_bounds.total(error_bounds.update_distance(before[n], factors_of(state, n))) / size
                assert abs(moved - shown[n].relative_change) <= 1e-6


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, ranks=RANKS, k=st.integers(1, 8))
def test_property_3_orthonormal_bases_and_least_squares_coefficients(seed, shape, ranks, k):
    tasks = adapters(seed, shape, ranks)
    state = initialize(tasks, Choice(k=k))
    orthonormal(state)
    for target, layer in state.layers.items():
        for t, name in enumerate(tasks):
            a = np.asarray(balance({target: tasks[name][target]})[target].lora_a, np.float64)
            best = np.linalg.lstsq(layer.basis_a.astype(np.float64), a, rcond=None)[0]
            got = layer.coeff_a[t][:, : a.shape[1]]
            signs = np.sign(np.sum(got * best, axis=0))  # balancing leaves one sign per column open
            np.testing.assert_allclose(got * signs, best, atol=1e-5 * np.linalg.norm(a))
    later = adapters(seed + 1, shape, (2, 2))
    for name, adapter in later.items():
        state = merge(state, {f"new-{name}": adapter}, Choice(k=k))
        orthonormal(state)


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, path=st.sampled_from(["incremental", "dense"]))
def test_property_4_what_is_in_the_span_changes_no_old_task(seed, shape, path):
    tasks = adapters(seed, shape, (2, 2, 3), shared=4)
    names = list(tasks)
    state = initialize({n: tasks[n] for n in names[:2]}, LOSSLESS)
    once = merge(state, {names[2]: tasks[names[2]]}, LOSSLESS, path=path)
    for n in names[:2]:
        assert error_bounds.relative_distance(factors_of(state, n), factors_of(once, n)) <= 1e-5
        assert report(once)[n].relative_change <= 1e-5
    assert error(tasks[names[2]], once, names[2]) <= 1e-5
    twice = merge(once, {"again": tasks[names[2]]}, LOSSLESS, path=path)
    for n in names:
        assert error_bounds.relative_distance(factors_of(once, n), factors_of(twice, n)) <= 1e-5
    assert error_bounds.relative_distance(factors_of(once, names[2]), factors_of(twice, "again")) <= 1e-5
    assert {n: x.num_basis for n, x in once.layers.items()} == {n: x.num_basis for n, x in twice.layers.items()}


def test_the_change_of_rounded_factors_is_their_distance():
    """Also where one target's factors come back with columns of zeros."""
    (adapter,) = adapters(3, (9, 7), (3,)).values()
    float16 = {n: Factors(f.lora_a.astype("f2"), f.lora_b.astype("f2"), f.scale) for n, f in adapter.items()}
    first, *_ = float16
    a, b = float16[first].lora_a, float16[first].lora_b
    padded = Factors(np.pad(a, ((0, 0), (0, 2))), np.pad(b, ((0, 2), (0, 0))), adapter[first].scale)
    for rounded in (float16, {**float16, first: padded}):
        distance = error_bounds.relative_distance(adapter, rounded)
        assert 1e-5 < distance < 1e-2
        np.testing.assert_allclose(error_bounds.relative_change(adapter, rounded), distance, rtol=1e-6)


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, order=st.permutations(range(4)))
def test_property_4_with_enough_columns_order_does_not_matter_and_nothing_is_forgotten(seed, shape, order):
    tasks = adapters(seed, shape, (1, 2, 1, 2))
    names = [f"t{i}" for i in order]
    state = ShareState()
    for name in names:
        state = merge(state, {name: tasks[name]}, LOSSLESS)
    for name in names:
        assert error(tasks[name], state, name) <= 1e-5
        assert report(state)[name].error_bound <= 1e-5


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, k=st.integers(2, 6))
def test_property_5_the_new_task_is_the_projection_of_what_was_trained(seed, shape, k):
    tasks = adapters(seed, shape, (2, 3, 2))
    state = merge(initialize({n: tasks[n] for n in ("t0", "t1")}, Choice(k=k)), {"t2": tasks["t2"]}, Choice(k=k))
    for target, layer in state.layers.items():
        pa, pb = (x.astype(np.float64) @ x.T.astype(np.float64) for x in (layer.basis_a, layer.basis_b))
        want = pa @ update(tasks["t2"][target]) @ pb
        got = update(factors_of(state, "t2")[target])
        np.testing.assert_allclose(got, want, atol=1e-5 * np.linalg.norm(update(tasks["t2"][target])))


@QUICK
@given(seed=st.integers(0, 999), shape=SHAPES, k=st.integers(1, 5), log=st.floats(-2, 2))
def test_property_6_the_gauge_of_the_factors_does_not_matter(seed, shape, k, log):
    tasks = adapters(seed, shape, (2, 3, 2))
    rng = np.random.default_rng(seed)
    turned = {}
    for name, adapter in tasks.items():
        turned[name] = {}
        for target, f in adapter.items():
            g = rng.standard_normal((f.rank, f.rank)) + 3 * np.eye(f.rank)
            a = np.asarray(f.lora_a, np.float64) @ g * 10**log
            b = np.linalg.inv(g) @ np.asarray(f.lora_b, np.float64) / 10**log
            turned[name][target] = Factors(a.astype(np.float32), b.astype(np.float32), f.scale)
    one, other = initialize(tasks, Choice(k=k)), initialize(turned, Choice(k=k))
    for target in one.layers:
        for side in ("a", "b"):
            s = np.linalg.svd(stack(tasks, target, side), compute_uv=False)
            x, y = (getattr(state.layers[target], f"basis_{side}").astype(np.float64) for state in (one, other))
            assert x.shape == y.shape
            gap = s[x.shape[1] - 1] - (s[x.shape[1]] if x.shape[1] < len(s) else 0)
            np.testing.assert_allclose(x @ x.T, y @ y.T, atol=2e-4 * s[0] / gap)


def test_property_6_balanced_factors_are_balanced():
    f = adapters(0, (9, 14), (3,))["t0"]["q"]
    out = balance({"q": f})["q"]
    s = np.linalg.svd(update(f), compute_uv=False)[:3]
    np.testing.assert_allclose(out.lora_a.T @ out.lora_a, np.diag(s), atol=1e-5 * s[0])
    np.testing.assert_allclose(out.lora_b @ out.lora_b.T, np.diag(s), atol=1e-5 * s[0])
    np.testing.assert_allclose(update(out), update(f), atol=1e-5 * s[0])


@pytest.mark.parametrize("shape", [(3, 40), (40, 3)])
def test_property_1_holds_for_ranks_above_a_dimension(shape):
    tasks = adapters(0, shape, (5, 2))
    state = initialize(tasks, LOSSLESS)
    for name, adapter in tasks.items():
        assert error(adapter, state, name) <= 1e-6


@pytest.mark.parametrize("geometry", ["columns", "flat"])
def test_a_factor_is_rounded_once_however_many_columns_it_is_summed_from(geometry):
    # the proven bound is on the update as stored; a float32 sum over hundreds of columns would be off by more
    state = initialize_with(adapters(0, (300, 90), [3] * 90), LOSSLESS, geometry=geometry)
    for layer in state.layers.values():
        got = layer.factor("a", slice(None))
        exact = np.asarray(layer.basis_a, np.float64) @ np.asarray(layer.coeff_a, np.float64)
        if geometry == "flat":
            exact = np.swapaxes(exact.reshape(90, 3, 300), -1, -2)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, exact.astype(np.float32))
