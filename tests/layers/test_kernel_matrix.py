"""A kernel whose inputs are any of its axes, seen as a matrix, against einsum."""

import numpy as np

from share_jax.layers.effective_params import kernel_delta
from share_jax.layers.kernel_matrix import as_kernel
from share_jax.layers.targets import Target
from share_jax.parameterizations.separate import SeparateLoRA


def test_a_matrix_returns_to_the_kernel_whose_inputs_stand_last_or_between():
    kernel = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)):
        matrix = kernel.transpose(order).reshape(kernel.shape[order[0]], -1)
        np.testing.assert_array_equal(as_kernel(matrix, kernel.shape, order), kernel)


def test_the_update_of_a_kernel_with_heads_in_front_is_a_product_over_its_inputs():
    target = Target("q/w", ("q",), "Einsum", (2, 6, 3), 1, None, inputs=(1,))
    assert (target.d_in, target.d_out) == (6, 6)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 2)), rng.standard_normal((2, 6))
    delta = kernel_delta(SeparateLoRA(rank=2, alpha=2.0), target, {}, {"lora_a": a, "lora_b": b})
    np.testing.assert_allclose(delta, np.einsum("dr,rnh->ndh", a, b.reshape(2, 2, 3)), rtol=1e-12)
