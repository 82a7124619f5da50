"""The range finder on the host, against NumPy's float64 SVD; projectors are compared."""

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from share_jax.linalg import randomized_svd
from share_jax.linalg.randomized_svd import OVERSAMPLE, leading_bases, leading_eigenvectors
from share_jax.linalg.spectrum import spectra
from share_jax.runtime import threads

QUICK = settings(deadline=None, max_examples=15, derandomize=True)


def leading_basis(stack, **options):
    """Of one stack."""
    return leading_bases([stack], **options)[0]


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
    rng, spread, count = np.random.default_rng(0), randomized_svd._cholesky_qr, []
    monkeypatch.setattr(randomized_svd, "_cholesky_qr", lambda *args: count.append(1) or spread(*args))
    x = rng.standard_normal((200, 8)) @ rng.standard_normal((8, 300)) + 0.1 * rng.standard_normal((200, 300))
    found = []
    for foreseen in (0.0, randomized_svd.MIN_EXPECTED_GAIN):
        monkeypatch.setattr(randomized_svd, "MIN_EXPECTED_GAIN", foreseen)
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
    monkeypatch.setattr(threads, "processors", lambda: 4)
    stacks = [[one] for one in x]
    many = spectra(stacks, k=20, seed=7)
    monkeypatch.setattr(threads, "processors", lambda: 1)
    for one, other, third in zip(spectra(stacks, k=20, seed=7), many, spectra(stacks, k=20, seed=8), strict=True):
        np.testing.assert_array_equal(other.basis, one.basis)
        assert not np.array_equal(third.basis, one.basis)


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
    (whole,) = spectra([[x]], k=20)
    (parts,) = spectra([[x[:, :100], np.asfortranarray(x[:, 100:110]), x[:, 110:]]], k=20)
    np.testing.assert_allclose(projector(whole.basis), projector(parts.basis), atol=1e-3)
    np.testing.assert_allclose(whole.singular_values, parts.singular_values, rtol=1e-5)
    np.testing.assert_allclose(whole.energy, parts.energy, rtol=1e-12)


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
from share_jax.cli.main import main
root = sys.argv[1]
assert main(["compress", *sorted(glob.glob(root + "/t*")), "-o", root + "/set", "--k", "8"]) == 0
assert main(["export", root + "/set", "t1", "-o", root + "/out"]) == 0
assert main(["validate", root + "/set"]) == 0
print("jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_a_flat_spectrum_is_no_reason_to_stop_at_once(monkeypatch):
    """One of very many directions, hardly longer than the others: the first product holds next to nothing of it.

    That is a share of energy below `MIN_GAIN` from ten thousand rows on, or from some hundred where it is larger.
    """
    d = 600
    direction = np.random.default_rng(0).standard_normal(d)
    direction /= np.linalg.norm(direction)
    gram = np.eye(d) + np.outer(direction, direction)  # eigenvalue 2 among ones
    monkeypatch.setattr(randomized_svd, "MIN_GAIN", 0.01)
    basis, values = leading_eigenvectors(gram, k=1)
    monkeypatch.setattr(randomized_svd, "POWER_ITERATIONS", 0)
    first = leading_eigenvectors(gram, k=1)[1][0]
    assert values[0] > first + 0.05
    assert float(basis[:, 0] @ gram @ basis[:, 0]) == pytest.approx(values[0], rel=1e-12)
    np.testing.assert_allclose(basis.T @ basis, np.eye(1 + OVERSAMPLE), atol=1e-12)


def test_eigenvectors_of_a_gram_matrix_are_those_of_its_svd():
    x = graded(4, 200, 900, 1e-3)
    x[:, :20] *= 30  # a gap
    basis, values = leading_eigenvectors(x @ x.T, k=20)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(values[:20], s[:20] ** 2, rtol=1e-6)
    assert np.linalg.norm(projector(u[:, :20]) - projector(basis[:, :20]), 2) < 1e-2
    nothing = leading_eigenvectors(np.zeros((200, 200)), k=20)
    assert not nothing[1].any()
