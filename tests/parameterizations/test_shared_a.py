"""Form 1: delta_t = (alpha / r) A @ B[t]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.errors import InputError
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.shared_a import SharedA


def test_defaults_are_rank_4_alpha_8_std_002():
    method = SharedA()
    assert (method.rank, method.alpha, method.init_std, method.scale, method.name) == (4, 8.0, 0.02, 2.0, "shared_a")
    assert isinstance(method, Parameterization)


def test_a_is_normal_with_std_002_and_b_is_zero():
    method = SharedA(rank=8)
    a = method.init_shared(jax.random.key(0), 4000, 30)["lora_a"]
    assert (a.shape, a.dtype) == ((4000, 8), jnp.float32)
    assert abs(float(a.std()) - 0.02) < 0.02 * 4 / np.sqrt(2 * a.size)  # four standard errors
    assert abs(float(a.mean())) < 4 * 0.02 / np.sqrt(a.size)
    b = method.init_task(jax.random.key(1), 4000, 30)["lora_b"]
    assert b.shape == (8, 30)
    assert not b.any()


def test_a_rank_may_be_a_whole_number_of_numpys():
    assert SharedA(rank=np.int64(3)) == SharedA(rank=3)  # pyright: ignore[reportArgumentType]
    for wrong in (np.int64(0), np.float64(4), np.bool_(True), 4.0):
        with pytest.raises(InputError, match="rank"):
            SharedA(rank=wrong)


def leaves():
    rng = np.random.default_rng(1)
    return {"lora_a": rng.standard_normal((7, 3))}, {"lora_b": rng.standard_normal((3, 5))}


def to_float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@pytest.mark.parametrize("alpha", [3.0, 8.0])
def test_down_and_up_are_the_scaled_product_and_factors_are_the_same_delta(alpha):
    shared, slot = leaves()
    want = alpha / 3 * shared["lora_a"] @ slot["lora_b"]
    method = SharedA(rank=3, alpha=alpha)
    x = np.random.default_rng(2).standard_normal((2, 4, 7))
    shared, slot = to_float32(shared), to_float32(slot)
    a, b = method.factors(shared, slot)
    np.testing.assert_allclose(a @ b, want, rtol=1e-5, atol=1e-5)
    h = jnp.asarray(x, jnp.float32) @ method.down(shared, slot)
    np.testing.assert_allclose(method.up(shared, slot, h), x @ want, rtol=1e-5, atol=1e-5)


def test_a_batched_slot_gives_each_example_its_own_update():
    shared, _ = leaves()
    shared = to_float32(shared)
    rng = np.random.default_rng(3)
    b = jnp.asarray(rng.standard_normal((2, 3, 5)), jnp.float32)
    h = jnp.asarray(rng.standard_normal((2, 4, 3)), jnp.float32)
    method = SharedA(rank=3)
    mixed = method.up(shared, {"lora_b": b}, h)
    for i in range(2):
        np.testing.assert_allclose(mixed[i], method.up(shared, {"lora_b": b[i]}, h)[i], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"rank": -1},
        {"rank": True},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"alpha": float("inf")},
        {"init_std": -1.0},
    ],
)
def test_numbers_that_make_no_adapter_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SharedA(**wrong)
