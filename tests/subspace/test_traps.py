"""The known traps of the method, each as a test, with what breaks when one falls into it."""

import numpy as np
import pytest

from share_jax.adapters.factors import Factors
from share_jax.errors import TaskError
from share_jax.linalg.spectrum import symmetric_basis
from share_jax.subspace.initialization import initialize
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import factors_of, report, stack_size

LOSSLESS = Choice(relative_error=0.0)
SHAPE = (11, 7)  # d_in, d_out and every rank differ, so that a missing transpose cannot go unseen


def tasks(count, *, r=2, seed=0, offset=0.0, targets=("q",)):
    rng = np.random.default_rng(seed)
    return {
        f"t{i}": {
            n: Factors(
                (rng.standard_normal((SHAPE[0], r)) + offset).astype(np.float32),
                (rng.standard_normal((r, SHAPE[1])) + offset).astype(np.float32),
            )
            for n in targets
        }
        for i in range(count)
    }


def update(f):
    return f.scale * np.asarray(f.lora_a, np.float64) @ np.asarray(f.lora_b, np.float64)


def error(adapter, state, task):
    got = factors_of(state, task)
    diff = sum(np.sum((update(f) - update(got[n])) ** 2) for n, f in adapter.items())
    return np.sqrt(diff / sum(np.sum(update(f) ** 2) for f in adapter.values()))


def test_centring_and_dropping_the_mean():
    # Factors with a large common mean: a basis of centred columns misses the mean and loses most of every update.
    given = tasks(2, offset=3.0)
    state = initialize(given, LOSSLESS)
    assert all(error(adapter, state, name) < 1e-6 for name, adapter in given.items())


def test_padding_old_coefficients_without_projecting_them_again():
    # With padded instead of rotated coefficients, old tasks are read off a basis that has turned under them.
    given = tasks(3)
    state = initialize({"t0": given["t0"]}, LOSSLESS)
    merged = merge(state, {"t1": given["t1"]}, LOSSLESS)
    old, new = state.layers["q"], merged.layers["q"]
    padded = np.pad(old.coeff_a[0], ((0, new.basis_a.shape[1] - old.basis_a.shape[1]), (0, 0)))
    assert np.linalg.norm(new.basis_a @ padded - old.basis_a @ old.coeff_a[0]) > 0.1  # the trap is real here
    assert error(given["t0"], merged, "t0") < 1e-5


def test_projecting_only_the_old_reconstruction_loses_the_task_just_learnt():
    given = tasks(2)
    merged = merge(initialize({"t0": given["t0"]}, LOSSLESS), {"t1": given["t1"]}, LOSSLESS)
    assert error(given["t1"], merged, "t1") < 1e-5


def test_merging_only_the_previous_task_drops_older_ones():
    given = tasks(3)
    state = initialize({"t0": given["t0"]}, LOSSLESS)
    for name in ("t1", "t2"):
        state = merge(state, {name: given[name]}, LOSSLESS)
    assert all(error(given[name], state, name) < 1e-5 for name in given)


def test_missing_transpose():
    # d_in = 11, d_out = 7, r = 2, k = 4: a transposed factor does not even multiply.
    given = tasks(2)
    state = initialize(given, LOSSLESS)
    layer = state.layers["q"]
    assert layer.basis_a.shape == (11, 4)
    assert layer.basis_b.shape == (7, 4)
    assert layer.coeff_a.shape == (2, 4, 2)
    assert factors_of(state, "t1")["q"].lora_a.shape == (11, 2)
    assert factors_of(state, "t1")["q"].lora_b.shape == (2, 7)
    assert error(given["t1"], state, "t1") < 1e-6


@pytest.mark.parametrize("use_rslora", [False, True])
def test_losing_alpha_or_the_rslora_scale(use_rslora):
    # alpha = 16, r = 2: without the scale every update is 8 (or 11.3) times too small.
    f = tasks(1)["t0"]["q"]
    scale = 16 / (2**0.5 if use_rslora else 2)
    state = initialize({"t0": {"q": Factors(f.lora_a, f.lora_b, scale)}}, LOSSLESS)
    want = (16 / np.sqrt(2) if use_rslora else 8) * f.lora_a.astype(np.float64) @ f.lora_b
    np.testing.assert_allclose(update(factors_of(state, "t0")["q"]), want, atol=1e-5 * np.linalg.norm(want))


def test_a_negative_scale_is_kept():
    f = tasks(1)["t0"]["q"]
    given = {"t0": {"q": Factors(f.lora_a, f.lora_b, -0.5)}}
    assert error(given["t0"], initialize(given, LOSSLESS), "t0") < 1e-6


def test_losing_target_modules():
    # A task that lacks a target must neither get a zero adapter there on export nor lose the ones it has.
    wide, narrow = tasks(1, targets=("q", "v"))["t0"], tasks(1, seed=1)["t0"]
    state = merge(initialize({"narrow": narrow}, LOSSLESS), {"wide": wide}, LOSSLESS)
    assert set(factors_of(state, "narrow")) == {"q"}
    assert set(factors_of(state, "wide")) == {"q", "v"}
    assert error(wide, state, "wide") < 1e-5
    assert error(narrow, state, "narrow") < 1e-5


def test_mixed_ranks_come_back_as_they_were():
    given = {"two": tasks(1)["t0"], "three": tasks(1, r=3, seed=1)["t0"], "one": tasks(1, r=1, seed=2)["t0"]}
    state = merge(initialize({"two": given["two"]}, LOSSLESS), {"three": given["three"], "one": given["one"]}, LOSSLESS)
    assert [factors_of(state, n)["q"].rank for n in given] == [2, 3, 1]
    assert all(error(adapter, state, name) < 1e-5 for name, adapter in given.items())


def test_counting_only_coefficients():
    # What a set stores is bases and coefficients; padding to the largest rank is not stored and not counted.
    given = {"two": tasks(1)["t0"], "one": tasks(1, r=1, seed=2)["t0"]}
    state = initialize(given, LOSSLESS)
    assert stack_size(state) == 3 * (11 + 7) + (3 + 3) * (2 + 1)


def test_padding_k_past_the_rank():
    # Six tasks in a span of two directions, k = 9 asked: null-space columns would be noise that costs memory.
    rng = np.random.default_rng(0)
    pool_a, pool_b = rng.standard_normal((11, 2)), rng.standard_normal((7, 2))
    given = {
        f"t{i}": {
            "q": Factors(
                (pool_a @ rng.standard_normal((2, 2))).astype(np.float32),
                (pool_b @ rng.standard_normal((2, 2))).T.astype(np.float32),
            )
        }
        for i in range(6)
    }
    assert initialize(given, Choice(k=9)).layers["q"].num_basis == (2, 2)
    state = initialize({"t0": given["t0"]}, Choice(k=9))
    for name in list(given)[1:]:
        state = merge(state, {name: given[name]}, Choice(k=9))
    assert state.layers["q"].num_basis == (2, 2)


def test_a_symmetric_matrix_has_real_orthogonal_eigenvectors():
    # A general eigen-solver gives complex or skewed vectors for equal eigenvalues.
    basis, _ = symmetric_basis(np.eye(6, dtype=np.float32) * 3)
    assert basis.dtype == np.float32
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-5)


def test_repeated_merges_do_not_eat_the_subspace_away():
    # A threshold applied to what is left, over and over, loses its share each time: 0.9 of 0.9 of 0.9 ...
    given = tasks(1, r=4)
    state = initialize(given, Choice(explained_variance=0.9))
    k = state.layers["q"].num_basis
    for i in range(12):
        same = {"q": Factors(given["t0"]["q"].lora_a, given["t0"]["q"].lora_b, 1e-3 * (i + 1))}
        state = merge(state, {f"n{i}": same}, Choice(explained_variance=0.9))
    assert all(now >= before for now, before in zip(state.layers["q"].num_basis, k, strict=True))
    assert report(state)["t0"].error_bound < 0.45


def test_a_mistyped_task_name_is_an_error():
    state = initialize(tasks(2), LOSSLESS)
    with pytest.raises(TaskError, match="'t7'"):
        factors_of(state, "t7")
    with pytest.raises(TaskError, match="exists"):
        merge(state, {"t1": tasks(1)["t0"]}, LOSSLESS)
