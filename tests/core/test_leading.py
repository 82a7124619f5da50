"""The range finder and the balancing on the host, against NumPy's float64 SVD; projectors are compared."""

import json
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from share_jax.core import bounds, leading, parallel
from share_jax.core.choice import Choice
from share_jax.core.fold import Factors, balanced
from share_jax.core.initialize import initialize
from share_jax.core.leading import OVERSAMPLE, leading_bases, leading_basis
from share_jax.core.spectra import leading_spectra, spectra_of_stacks
from share_jax.errors import InputError

QUICK = settings(deadline=None, max_examples=15, derandomize=True)


def graded(seed, d, n, smallest):
    """A (d, n) matrix with singular values from 1 to `smallest`, geometric."""
    rng, m = np.random.default_rng(seed), min(d, n)
    u, v = (np.linalg.qr(rng.standard_normal((x, m)))[0] for x in (d, n))
    return (u * np.geomspace(1, smallest, m)) @ v.T


def projector(basis):
    basis = np.asarray(basis, np.float64)
    return basis @ basis.T


def oracle(x, k):
    return np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)[0][:, :k]


@QUICK
@given(seed=st.integers(0, 99), k=st.integers(1, 8))
def test_the_leading_subspace_is_that_of_the_svd_where_there_is_a_gap(seed, k):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, k)) @ rng.standard_normal((k, 90)) + 0.05 * rng.standard_normal((60, 90))
    basis, values = leading_basis(x.astype(np.float32), k=k, seed=seed)
    assert basis.shape == (60, k + OVERSAMPLE)
    np.testing.assert_allclose(basis.T @ basis, np.eye(k + OVERSAMPLE), atol=1e-5)
    np.testing.assert_allclose(projector(basis[:, :k]), projector(oracle(x, k)), atol=1e-4)
    np.testing.assert_allclose(values[:k], np.linalg.svd(x, compute_uv=False)[:k], rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
def test_what_is_missed_is_within_half_a_percent_of_the_least_without_any_gap(decay):
    s = np.arange(1, 201.0) ** -decay
    x = (graded(0, 300, 200, 1.0) @ np.diag(s) if decay else np.random.default_rng(0).standard_normal((300, 200))) * 7
    basis = leading_basis(x.astype(np.float32), k=32)[0][:, :32].astype(np.float64)
    least = np.sqrt(np.sum(np.linalg.svd(x, compute_uv=False)[32:] ** 2))
    assert np.linalg.norm(x - basis @ (basis.T @ x)) <= 1.005 * least


def test_a_gap_behind_k_saves_the_last_look(monkeypatch):
    """A stack with a gap is done as soon as the next iteration is foreseen to gain nothing, and as well."""
    rng, spread, count = np.random.default_rng(0), leading._spread, []
    monkeypatch.setattr(leading, "_spread", lambda *args: count.append(1) or spread(*args))
    x = rng.standard_normal((200, 8)) @ rng.standard_normal((8, 300)) + 0.1 * rng.standard_normal((200, 300))
    found = []
    for foreseen in (0.0, leading.FORESEEN):
        monkeypatch.setattr(leading, "FORESEEN", foreseen)
        count.clear()
        found.append((leading_basis(x.astype(np.float32), k=8)[0][:, :8], len(count)))
    (patient, most), (quick, fewer) = found
    assert fewer == most - 2
    np.testing.assert_allclose(projector(quick), projector(patient), atol=1e-5)


def test_directions_below_the_rounding_of_a_gram_matrix_survive():
    # singular values down to 3e-4 of the largest: their squares are below float32's rounding of the largest
    x = graded(3, 120, 40, 3e-4).astype(np.float32)
    basis, values = leading_basis(x, k=40)
    assert np.linalg.norm(x - basis @ (basis.T @ x)) < 3e-6
    np.testing.assert_allclose(values, np.geomspace(1, 3e-4, 40), rtol=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_stack_of_lower_rank_of_any_size(size):
    low = graded(0, 50, 4, 0.1) @ np.random.default_rng(0).standard_normal((4, 70)) * size
    basis, values = leading_basis(low.astype(np.float32), k=10)
    np.testing.assert_allclose(basis[:, :4] @ (basis[:, :4].T @ low), low, atol=1e-5 * size)
    assert np.all(values[4:] < 1e-5 * values[0])
    np.testing.assert_allclose(values[:4], np.linalg.svd(low, compute_uv=False)[:4], rtol=1e-5)


def test_a_stack_of_nothing():
    basis, values = leading_basis(np.zeros((50, 70), np.float32), k=10)
    assert np.all(values == 0)
    assert np.all(np.isfinite(basis))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_what_is_below_float32_is_taken_in_it_and_float64_stays(dtype):
    basis, values = leading_basis(graded(0, 40, 60, 1e-2).astype(dtype), k=40)
    wide = dtype == np.float64
    assert basis.dtype == values.dtype == (np.float64 if wide else np.float32)
    np.testing.assert_allclose(basis.T @ basis, np.eye(40), atol=1e-13 if wide else 1e-5)


def test_float64_resolves_what_a_gram_matrix_of_it_would_not():
    x = graded(3, 60, 40, 1e-12)
    np.testing.assert_allclose(leading_basis(x, k=40)[1], np.geomspace(1, 1e-12, 40), rtol=1e-3)


def test_wider_than_the_stack_means_all_of_it():
    assert leading_basis(np.ones((5, 9), np.float32), k=50)[0].shape == (5, 5)


def test_a_seed_gives_the_same_bits_on_one_processor_and_on_many(monkeypatch):
    x = np.random.default_rng(0).standard_normal((6, 200, 300)).astype(np.float32)
    monkeypatch.setattr(parallel, "processors", lambda: 4)
    many = spectra_of_stacks(x, k=20, seed=7)
    monkeypatch.setattr(parallel, "processors", lambda: 1)
    one = spectra_of_stacks(x, k=20, seed=7)
    np.testing.assert_array_equal(many.basis, one.basis)
    assert not np.array_equal(spectra_of_stacks(x, k=20, seed=8).basis, one.basis)


def test_stacks_that_are_taken_together_are_each_as_alone():
    """Also where one is done before the others, is of nothing, or leaves float32's range."""
    rng = np.random.default_rng(0)
    sharp = [rng.standard_normal((80, 5)) @ rng.standard_normal((5, 90)) + 0.01 * rng.standard_normal((80, 90))]
    stacks = [*sharp, rng.standard_normal((80, 90)), np.zeros((80, 90)), 1e30 * sharp[0], rng.standard_normal((80, 90))]
    narrow = [x.astype(np.float32) for x in stacks]
    for x, (basis, values) in zip(narrow, leading_bases(narrow, k=5), strict=True):
        alone = leading_basis(x, k=5)
        np.testing.assert_array_equal(basis, alone[0])
        np.testing.assert_array_equal(values, alone[1])


def test_a_stack_in_parts_is_that_stack():
    x = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
    whole = spectra_of_stacks(x[None], k=20)
    (parts,) = leading_spectra([[x[:, :100], np.asfortranarray(x[:, 100:110]), x[:, 110:]]], k=20)
    np.testing.assert_allclose(projector(whole.basis[0]), projector(parts.basis[0]), atol=1e-3)
    np.testing.assert_allclose(whole.singular_values, parts.singular_values, rtol=1e-5)
    np.testing.assert_allclose(whole.energy, parts.energy, rtol=1e-12)


def pair(seed, d_in, d_out, r, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d_in, r)).astype(dtype), rng.standard_normal((d_out, r)).astype(dtype)


def of_one(a, b):
    """Balanced factors of one pair, in float64."""
    x, y = balanced(a[None, None], b[None, None])
    assert x.dtype == a.dtype
    assert y.dtype == b.dtype
    return x[0, 0].astype(np.float64), y[0, 0].astype(np.float64)


def check_balanced(a, b, tolerance=1e-6):
    x, y = of_one(a, b)
    update = a.astype(np.float64) @ b.astype(np.float64).T
    s = np.linalg.svd(update, compute_uv=False)[: x.shape[1]]
    assert x.shape[1] == y.shape[1] == min(a.shape[1], *update.shape)
    np.testing.assert_allclose(x @ y.T, update, atol=tolerance * s[0])
    for side in (x, y):
        np.testing.assert_allclose(side.T @ side, np.diag(s), atol=tolerance * s[0])
        alive = s > 1e-3 * s[0]  # each column for itself, as exact as the largest
        np.testing.assert_allclose(np.sum(side * side, axis=0)[alive], s[alive], rtol=1e3 * tolerance)


@QUICK
@given(seed=st.integers(0, 99), d_in=st.integers(1, 40), d_out=st.integers(1, 40), r=st.integers(1, 9))
def test_balanced_factors_of_any_shape(seed, d_in, d_out, r):
    check_balanced(*pair(seed, d_in, d_out, r))


@pytest.mark.parametrize(("a_size", "b_size"), [(1e-20, 1e-18), (1e19, 1e18), (1e-15, 1e15)])
def test_tiny_and_huge_updates_lose_nothing(a_size, b_size):
    a, b = pair(0, 50, 40, 8)
    check_balanced(a * np.float32(a_size), b * np.float32(b_size))


def test_columns_of_very_different_lengths_are_as_exact_as_any():
    a, b = pair(0, 50, 40, 8)
    lengths = np.geomspace(1e-6, 1e6, 8).astype(np.float32)
    check_balanced(a * lengths, b / lengths)


def test_small_singular_values_of_an_update_are_kept():
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.standard_normal((50, 8)))[0] * np.geomspace(1, 1e-6, 8)
    b = np.linalg.qr(rng.standard_normal((40, 8)))[0]
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    x, _ = of_one((a @ turn).astype(np.float32), (b @ turn).astype(np.float32))
    np.testing.assert_allclose(np.sum(x * x, axis=0)[:5], np.geomspace(1, 1e-6, 8)[:5], rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_that_depend_on_others_come_out_as_nothing(dtype):
    a, b = pair(0, 50, 40, 8, dtype)
    a[:, 3:] = a[:, :5]
    check_balanced(a, b)
    x, y = of_one(a, b)
    assert np.all(x[:, 5:] == 0)
    assert np.all(y[:, 5:] == 0)
    b[:] = 0
    assert all(np.all(side == 0) for side in of_one(a, b))


def test_float64_is_balanced_in_float64_and_less_than_float32_in_that():
    a, b = pair(0, 50, 40, 8, np.float64)
    check_balanced(a, b, tolerance=1e-13)
    x, y = balanced(a[None, None] * 1e200, b[None, None] * 1e-200)
    np.testing.assert_allclose(x[0, 0] @ y[0, 0].T, a @ b.T, rtol=1e-9)
    low = balanced(a[None, None].astype(np.float16), b[None, None].astype(ml_dtypes.bfloat16))
    assert [x.dtype for x in low] == [np.float32, np.float32]


def test_close_columns_of_many_are_told_apart_as_those_of_few():
    # exact in float32; a threshold that grew with the number of columns would take the difference for rounding
    a, b = pair(0, 80, 70, 64)
    a, b = a / np.float32(80**0.5), b / np.float32(70**0.5)
    a[:, 1] = a[:, 0]
    a[1, 1] += np.float32(4e-7)
    b[:, 1] = -b[:, 0]
    x, y = of_one(a, b)
    np.testing.assert_allclose(x @ y.T, a.astype(np.float64) @ b.astype(np.float64).T, atol=1e-6)
    difference = a[1, 1].astype(np.float64) - a[1, 0]
    own = (x @ y.T)[1] - (a[:, 2:].astype(np.float64) @ b[:, 2:].astype(np.float64).T)[1]
    np.testing.assert_allclose(own, -difference * b[:, 0], atol=1e-7)


def test_a_task_is_balanced_to_the_bit_as_without_its_neighbours():
    a, b = (np.random.default_rng(0).standard_normal((1, 3, d, 4)).astype(np.float32) for d in (20, 30))
    b[0, 1] = 0  # untrained
    a[0, 2, :, 3] = a[0, 2, :, 0]  # of lower rank
    together = balanced(a, b)
    for t in range(3):
        alone = balanced(a[:, t : t + 1], b[:, t : t + 1])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[:, t : t + 1], other)


def test_an_update_past_float32_is_one_clear_line():
    huge = Factors(np.full((9, 2), 1e38, np.float32), np.full((2, 7), 1e-3, np.float32), 64.0)
    fine = Factors(np.ones((9, 2), np.float32), np.ones((2, 7), np.float32))
    with pytest.raises(InputError, match=r"target q, adapter 2 of 2.*past float32"):
        initialize({"x": {"q": fine}, "y": {"q": huge}}, Choice(k=2))


@QUICK
@given(seed=st.integers(0, 99), d=st.integers(1, 30), p=st.integers(1, 5))
def test_distances_from_gram_matrices_are_those_of_the_updates(seed, d, p):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((3, d + more, p)) for more in (0, 4))
    c, e = (x + 0.1 * rng.standard_normal(x.shape) for x in (a, b))
    grams = [
        bounds.Grams(*(np.swapaxes(u, 1, 2) @ v for u, v in ((x, x), (x, y), (y, y)))) for x, y in ((a, c), (b, e))
    ]
    size, squared, margin = bounds.distance_from_grams(*grams)
    one, other = a @ np.swapaxes(b, 1, 2), c @ np.swapaxes(e, 1, 2)
    np.testing.assert_allclose(size, np.sum(one**2, axis=(1, 2)), rtol=1e-9)
    np.testing.assert_allclose(squared, np.sum((one - other) ** 2, axis=(1, 2)), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(margin, bounds.rounding(a, b), rtol=1e-9)


def test_layers_and_tasks_are_balanced_each_by_itself():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((3, 4, d, 2)).astype(np.float32) for d in (9, 7))
    x, y = balanced(a, b)
    for i in np.ndindex(3, 4):
        alone = balanced(a[i][None, None], b[i][None, None])
        np.testing.assert_allclose(x[i] @ y[i].T, a[i] @ b[i].T, atol=1e-5)
        np.testing.assert_allclose(np.abs(x[i]), np.abs(alone[0][0, 0]), atol=1e-5)


def test_each_keeps_the_order_runs_side_by_side_and_passes_errors_on(monkeypatch):
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # breaks unless two pieces are at work at once

    def work(x):
        both.wait()
        return -x

    assert parallel.each(work, [3, 1, 2, 4]) == [-3, -1, -2, -4]
    with pytest.raises(ZeroDivisionError):
        parallel.each(lambda x: 1 / x, [1, 0])


def blas_threads():
    return {found["num_threads"] for found in threadpoolctl.threadpool_info() if found["user_api"] == "blas"}


def test_blas_has_one_thread_beside_others_and_gets_its_own_back(monkeypatch):
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    parallel._controller.cache_clear()  # of another test's, before a library was loaded that has a BLAS of its own
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert parallel.each(lambda _: blas_threads(), [0, 1]) == [{1}, {1}]
        assert blas_threads() == {2}
        with pytest.raises(ZeroDivisionError):
            parallel.each(lambda x: 1 / x, [0, 0])
        assert blas_threads() == {2}


def test_pieces_may_have_pieces_and_callers_come_at_once(monkeypatch):
    monkeypatch.setattr(parallel, "processors", lambda: 2)

    def whole(n):
        return sum(parallel.each(lambda x: sum(parallel.each(lambda y: x * y, range(3))), range(n)))

    found = []
    callers = [threading.Thread(target=lambda: found.append(whole(20)), daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert found == [3 * sum(range(20))] * 3


@pytest.mark.parametrize("count", [3, 50, 200])  # dense, by the range finder, and by Gram matrices
def test_compressing_loads_no_jax(count, tmp_path):
    """A command that needs no compiled program does not wait for the compiler."""
    rng, layer = np.random.default_rng(0), "base_model.model.layers.0.q_proj"
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    for i in range(count):
        folder = tmp_path / f"t{i}"
        folder.mkdir()
        sides = {"A": rng.normal(size=(4, 300)), "B": rng.normal(size=(200, 4))}
        save_file({f"{layer}.lora_{s}.weight": x.astype("f4") for s, x in sides.items()},
                  folder / "adapter_model.safetensors", metadata={"format": "pt"})  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(config))
    code = """
import glob, sys
from share_jax.cli import main
root = sys.argv[1]
assert main(["compress", *sorted(glob.glob(root + "/t*")), "-o", root + "/set", "--k", "8"]) == 0
assert main(["export", root + "/set", "t1", "-o", root + "/out"]) == 0
assert main(["validate", root + "/set"]) == 0
print("jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
