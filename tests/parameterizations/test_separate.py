"""Plain LoRA per task: delta_t = (alpha / r) A[t] @ B[t], nothing shared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.errors import InputError
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.separate import SeparateLoRA


def slot(*batch: int) -> dict:
    rng = np.random.default_rng(1)
    return {
        "lora_a": jnp.asarray(rng.standard_normal((*batch, 7, 3)), jnp.float32),
        "lora_b": jnp.asarray(rng.standard_normal((*batch, 3, 5)), jnp.float32),
    }


def test_both_factors_belong_to_the_task_and_nothing_is_shared():
    method = SeparateLoRA()
    assert isinstance(method, Parameterization)
    assert (method.rank, method.alpha, method.scale, method.name) == (4, 8.0, 2.0, "separate")
    assert method.init_shared(jax.random.key(0), 7, 5) == {}
    own = method.init_task(jax.random.key(0), 7000, 5)
    assert {name: leaf.shape for name, leaf in own.items()} == {"lora_a": (7000, 4), "lora_b": (4, 5)}
    assert abs(float(own["lora_a"].std()) - 0.02) < 0.001
    assert not own["lora_b"].any()


def test_down_and_up_are_the_scaled_product_and_factors_are_the_same_delta():
    method, own = SeparateLoRA(rank=3, alpha=12.0), slot()
    want = 4.0 * np.asarray(own["lora_a"]) @ np.asarray(own["lora_b"])
    a, b = method.factors({}, own)
    np.testing.assert_allclose(a @ b, want, rtol=1e-5, atol=1e-5)
    x = np.random.default_rng(2).standard_normal((2, 4, 7)).astype(np.float32)
    np.testing.assert_allclose(method.up({}, own, x @ method.down({}, own)), x @ want, rtol=1e-5, atol=1e-4)


def test_a_batched_slot_gives_a_batched_down_matrix():
    assert SeparateLoRA(rank=3).down({}, slot(2)).shape == (2, 7, 3)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": -8.0}, {"init_std": 0.0}])
def test_numbers_that_make_no_adapter_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SeparateLoRA(**wrong)
