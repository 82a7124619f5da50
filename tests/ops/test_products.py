"""The products of an adapter, in all their forms, equal the plain ones, and so do their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.ops.products import (
    OUTER_COLUMNS,
    down_product,
    merging_pays,
    outer_sum,
    up_product,
    with_merged_kernel,
    without_merging,
)

# float32 products of a few terms of size one: 1e-6 is several ulp.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("product", [down_product, up_product])
def test_one_matrix_for_the_batch(product):
    x, matrix = arrays((3, 5, 7), (7, 2))
    np.testing.assert_allclose(product(x, matrix), np.matmul(x, matrix), **CLOSE)


def test_the_upward_product_is_flat_on_accelerators_and_batched_on_a_cpu(monkeypatch):
    x, matrix = arrays((3, 5, 7), (7, 2))
    batched = jax.jit(up_product).lower(x, matrix).as_text()
    assert "batching_dims" in batched
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    flat = jax.jit(lambda x, matrix: up_product(x, matrix)).lower(x, matrix).as_text()
    assert "dot_general" in flat
    assert "batching_dims" not in flat
    np.testing.assert_allclose(up_product(x, matrix), np.matmul(x, matrix), **CLOSE)


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


@pytest.mark.parametrize("columns", [1, 2, 8, OUTER_COLUMNS, OUTER_COLUMNS + 1])
def test_a_sum_of_outer_products_is_the_product(columns):
    """To float32's rounding of so many terms of size one, also with the kernel that it is added to in one program."""
    a, b, kernel = arrays((48, columns), (columns, 64), (48, 64))
    exact = np.matmul(a, b, dtype=np.float64)
    np.testing.assert_allclose(outer_sum(a, b), exact, rtol=1e-6, atol=1e-6 * columns**0.5)
    got = jax.jit(lambda a, b, kernel: outer_sum(a, b) + kernel)(a, b, kernel)
    np.testing.assert_allclose(got, exact + np.asarray(kernel), rtol=1e-6, atol=1e-6 * columns**0.5)


def test_many_columns_are_left_to_the_product():
    few, many = ((jnp.zeros((4, n)), jnp.zeros((n, 4))) for n in (OUTER_COLUMNS, OUTER_COLUMNS + 1))
    assert "dot_general" not in jax.jit(outer_sum).lower(*few).as_text()
    assert "dot_general" in jax.jit(outer_sum).lower(*many).as_text()


def layer(params, leaves, x):
    return jnp.tanh(x) @ (params["kernel"] + leaves[0] @ leaves[1]) + params["bias"][None, None]


def beside(leaves, x):
    return jnp.tanh(x) @ leaves[0] @ leaves[1]


def case():
    x, kernel, bias, a, b = arrays((3, 5, 7), (7, 6), (6,), (7, 2), (2, 6))
    return {"kernel": kernel, "bias": bias}, (a, b), x


def close(got, want):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("moving", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_a_merged_layer_has_the_derivatives_of_the_plain_sum(moving):
    """Of its own kernel, the update's leaves and x, alone and together: gradients, and slopes forward."""
    objective = lambda run: lambda *args: jnp.sin(run(*args)).sum()  # noqa: E731
    mine, plain = objective(with_merged_kernel(layer, beside)), objective(layer)
    given = case()
    slopes = lambda run: jax.jit(lambda *args: (jax.grad(run, argnums=moving)(*args), jax.jvp(run, args, args)))  # noqa: E731
    close(slopes(mine)(*given), slopes(plain)(*given))


def test_a_merged_layer_has_the_second_derivatives_of_the_plain_sum():
    params, leaves, x = case()
    total = lambda run: lambda leaves, x: jnp.sin(run(params, leaves, x)).sum()  # noqa: E731
    curve = lambda run: jax.jit(jax.hessian(total(run), argnums=(0, 1)))  # noqa: E731
    close(curve(with_merged_kernel(layer, beside))(leaves, x), curve(layer)(leaves, x))


def test_a_merged_layer_maps_over_tasks():
    params, leaves, x = case()
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), leaves)
    got = jax.vmap(with_merged_kernel(layer, beside), in_axes=(None, 0, None))(params, stack, x)
    for index in range(2):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], stack)
        np.testing.assert_allclose(got[index], layer(params, own, x), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_factor_never_makes_the_gradient_of_the_kernel():
    x, kernel, bias, a, b = arrays((8, 32, 24), (24, 20), (20,), (24, 2), (2, 20))
    params, product = {"kernel": kernel, "bias": bias}, 2 * 256 * 24 * 20

    def operations(run):
        objective = lambda b: jnp.sin(run(params, (a, b), x)).sum()  # noqa: E731
        return jax.jit(jax.grad(objective)).lower(b).compile().cost_analysis()["flops"]

    forward = jax.jit(lambda b: layer(params, (a, b), x)).lower(b).compile().cost_analysis()["flops"]
    assert operations(layer) > forward + product
    assert operations(with_merged_kernel(layer, beside)) < forward + 0.4 * product


def test_merging_is_chosen_by_shape_type_and_place(monkeypatch):
    assert merging_pays(2080, 192, 192, jnp.float32)
    assert merging_pays(96, 192, 192, jnp.float32)
    assert not merging_pays(95, 192, 192, jnp.float32)
    assert not merging_pays(2080, 192, 192, jnp.bfloat16)
    with without_merging():
        assert not merging_pays(2080, 192, 192, jnp.float32)
    assert merging_pays(2080, 192, 192, jnp.float32)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not merging_pays(2080, 192, 192, jnp.float32)
