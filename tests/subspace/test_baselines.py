"""The null against adapters that were drawn, and cutting against cut adapters."""

import numpy as np
import pytest

from share_jax.adapters.factors import Factors
from share_jax.linalg.balance import singular_values
from share_jax.subspace.baselines import cut_errors, null_errors
from share_jax.subspace.flat_geometry import initialize_with
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.state import relative

SHAPES = {"q": (160, 160), "v": (160, 96)}
RANK = 6


def random_adapters(count, seed=0, power=1.0):
    """Adapters with random frames and given, falling singular values; (adapters, singular values by target)."""
    rng = np.random.default_rng(seed)
    sizes = np.random.default_rng(9).lognormal(sigma=0.5, size=count)
    values = {name: sizes[:, None] * np.arange(1.0, RANK + 1) ** -power for name in SHAPES}
    adapters = {}
    for t in range(count):
        adapters[f"t{t}"] = {}
        for name, shape in SHAPES.items():
            u, v = (np.linalg.qr(rng.normal(size=(d, RANK)))[0] for d in shape)
            turn = rng.normal(size=(RANK, RANK))
            factors = Factors(u * values[name][t] @ turn, np.linalg.inv(turn) @ v.T)
            adapters[f"t{t}"][name] = factors
    return adapters, values


@pytest.mark.parametrize("k", [1, 8, 24])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_null_is_the_error_of_random_adapters(k, power):
    found, expected = [], []
    for seed in range(3):
        adapters, values = random_adapters(14, seed, power)
        state = initialize_with(adapters, Choice(k=k))
        found.append(relative(state, "change"))
        expected.append(null_errors(state.layers, values))
    # the draws of one task scatter by a few percent, the mean of all by less
    np.testing.assert_allclose(np.mean(found, 0), np.mean(expected, 0), atol=0.08)
    np.testing.assert_allclose(np.mean(found), np.mean(expected), rtol=0.02)


@pytest.mark.parametrize("k", [2, 5])
def test_the_null_of_the_flat_geometry(k):
    rng = np.random.default_rng(0)
    adapters = {
        f"t{t}": {n: Factors(rng.normal(size=(a, RANK)), rng.normal(size=(RANK, b))) for n, (a, b) in SHAPES.items()}
        for t in range(9)
    }
    state = initialize_with(adapters, Choice(k=k), geometry="flat")
    values = spectra_of(adapters)
    np.testing.assert_allclose(relative(state, "change").mean(), null_errors(state.layers, values).mean(), rtol=0.03)


def test_adapters_that_share_a_subspace_lose_much_less_than_the_null():
    rng = np.random.default_rng(0)
    spans = {name: (rng.normal(size=(a, 10)), rng.normal(size=(b, 10))) for name, (a, b) in SHAPES.items()}
    adapters = {
        f"t{t}": {n: Factors(x @ rng.normal(size=(10, RANK)), rng.normal(size=(RANK, 10)) @ y.T)
                  for n, (x, y) in spans.items()}
        for t in range(9)
    }  # fmt: skip
    state = initialize_with(adapters, Choice(k=10))
    assert relative(state, "change").max() < 1e-5
    assert null_errors(state.layers, spectra_of(adapters)).min() > 0.5


def test_all_columns_lose_nothing_at_random_either():
    adapters, values = random_adapters(3)
    state = initialize_with(adapters, Choice(k=99))
    np.testing.assert_allclose(null_errors(state.layers, values), 0, atol=1e-6)


def spectra_of(adapters):
    """Singular values of all updates, by dense SVD."""
    dense = {n: [np.linalg.svd(x[n].lora_a @ x[n].lora_b, compute_uv=False) for x in adapters.values()] for n in SHAPES}
    return {name: np.stack(found)[:, :RANK] for name, found in dense.items()}


def test_singular_values_are_those_of_the_dense_update():
    adapters, values = random_adapters(3)
    for name in SHAPES:
        a, b = (np.stack([getattr(x[name], side) for x in adapters.values()]) for side in ("lora_a", "lora_b"))
        np.testing.assert_allclose(singular_values(a, b.mT), values[name], rtol=1e-9)
        short = singular_values(a.astype(np.float32), b.mT.astype(np.float32))
        np.testing.assert_allclose(short, values[name], rtol=1e-4)
    wide = singular_values(np.ones((1, 2, 5), np.float32), np.ones((1, 3, 5), np.float32))
    np.testing.assert_allclose(wide, [[5 * 6**0.5, 0]], atol=1e-6)


def test_cutting_is_truncation_to_the_bytes():
    adapters, _ = random_adapters(5, power=0.7)
    spectra = spectra_of(adapters)
    columns = {name: sum(shape) for name, shape in SHAPES.items()}
    for kept in (1, 3):  # as many columns of every target as bring both to one gain per byte, or fewer
        size = 4.0 * kept * sum(columns.values()) * len(adapters)
        errors = cut_errors(spectra, SHAPES, size, 4.0)
        for t, error in enumerate(errors):
            best = min(
                np.sqrt(sum((spectra[n][t, m:] ** 2).sum() for n, m in zip(SHAPES, (i, j), strict=True)))
                for i in range(RANK + 1) for j in range(RANK + 1)
                if 4.0 * (i * columns["q"] + j * columns["v"]) <= size / len(adapters)
            )  # fmt: skip
            norm = np.sqrt(sum((spectra[n][t] ** 2).sum() for n in SHAPES))
            assert best / norm - 1e-9 <= error <= 1.3 * best / norm  # greedy, not an exhaustive search
    np.testing.assert_allclose(cut_errors(spectra, SHAPES, 0.0, 4.0), 1, rtol=1e-12)
    np.testing.assert_allclose(cut_errors(spectra, SHAPES, 1e9, 4.0), 0, atol=1e-12)


def test_a_task_without_a_target_takes_no_bytes_for_it():
    spectra = {"q": np.array([[1.0, 1.0], [0.0, 0.0]]), "v": np.array([[1.0, 1.0], [1.0, 1.0]])}
    shapes = {"q": (5, 5), "v": (5, 5)}
    # room for three of six columns: two of the four that the first task has, one of the two of the second
    np.testing.assert_allclose(cut_errors(spectra, shapes, 30.0, 1.0), [np.sqrt(0.5), np.sqrt(0.5)])
