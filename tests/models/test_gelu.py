"""GELU by the error function, against its definition in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from share_jax.models.gelu import exact_gelu

POINTS = np.concatenate([np.linspace(-14, 14, 4001), [0.0, -9.0, np.nextafter(np.float32(-9), np.float32(0))]])


def true_value(x: np.ndarray) -> np.ndarray:
    return np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def true_slope(x: np.ndarray) -> np.ndarray:
    phi = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x]) + x * phi


def test_it_is_x_times_the_normal_distribution_function() -> None:
    x = POINTS.astype(np.float32)
    exact = true_value(x.astype(np.float64))
    np.testing.assert_allclose(jax.jit(exact_gelu)(x), exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(exact_gelu(jnp.asarray(x)), nn.gelu(x, approximate=False), rtol=1e-6, atol=1e-6)


def test_its_slope_is_the_definitions() -> None:
    x = POINTS.astype(np.float32)
    found = jax.jit(jax.vmap(jax.grad(exact_gelu)))(x)
    np.testing.assert_allclose(found, true_slope(x.astype(np.float64)), rtol=2e-6, atol=2e-6)


def test_the_selection_changes_no_value() -> None:
    x = POINTS[POINTS < -6].astype(np.float32)
    assert not np.any(exact_gelu(jnp.asarray(x)))
    assert np.isnan(exact_gelu(jnp.float32("nan")))
    assert exact_gelu(jnp.float32("inf")) == jnp.inf


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types_are_rounded_once(dtype: jnp.dtype) -> None:
    x = jnp.asarray(POINTS, dtype)
    found = exact_gelu(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, exact_gelu(x.astype(jnp.float32)).astype(dtype))
