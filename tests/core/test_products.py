"""The two skinny products, in all their forms, equal numpy's plain products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.core.products import down_product, up_product

# float32 products of a few terms of size one: 1e-6 is several ulp.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("product", [down_product, up_product])
def test_one_matrix_for_the_batch(product):
    x, matrix = arrays((3, 5, 7), (7, 2))
    np.testing.assert_allclose(product(x, matrix), np.matmul(x, matrix), **CLOSE)


@pytest.mark.parametrize("product", [down_product, up_product])
def test_one_matrix_per_example(product):
    x, matrix = arrays((3, 5, 7), (3, 7, 2))
    want = np.stack([np.asarray(x[i]) @ np.asarray(matrix[i]) for i in range(3)])
    np.testing.assert_allclose(product(x, matrix), want, **CLOSE)


@pytest.mark.parametrize("product", [down_product, up_product])
def test_the_same_matrix_per_example_equals_one_for_the_batch(product):
    x, matrix = arrays((3, 5, 7), (7, 2))
    np.testing.assert_allclose(product(x, matrix), product(x, jnp.stack([matrix] * 3)), **CLOSE)


@pytest.mark.parametrize("product", [down_product, up_product])
def test_gradients_equal_the_plain_product(product):
    x, matrix, weight = arrays((3, 5, 7), (7, 2), (3, 5, 2))
    got = jax.grad(lambda x, m: (product(x, m) * weight).sum(), argnums=(0, 1))(x, matrix)
    want = jax.grad(lambda x, m: ((x @ m) * weight).sum(), argnums=(0, 1))(x, matrix)
    for mine, plain in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-5)
