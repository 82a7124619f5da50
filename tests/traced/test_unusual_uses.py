"""Functions that use kernels, or order their outputs, in ways of their own: right, or refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import filled, normal

from share_jax import SharedA, adapt_function
from share_jax.errors import InputError

X = normal(4, 5, 6)
IDS = (1, 0, 1, 0)


def adapted_of(function, params, *x):
    adapted = adapt_function(function, params, *x, targets=".*", method=SharedA(rank=2))
    trees = jax.eval_shape(lambda key: adapted.init(key, params, 2), jax.random.key(0))
    return adapted, {**adapted.variables(params), **filled(trees)}


def patches(p, x):
    kernel = p["w"].reshape(2, 2, 4, 6)
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def experts(p, x):
    return jnp.einsum("bxyd,xydo->bxyo", x, p["w"].reshape(2, 2, 4, 3))


def beyond(p, ids):
    return jnp.take(p["w"], ids, axis=0, mode="fill", fill_value=0.5)


@pytest.mark.parametrize(
    ("function", "shape", "x"),
    [
        (patches, (16, 6), normal(4, 4, 4, 4)),
        (experts, (4, 4, 3), normal(4, 2, 2, 4)),
        (beyond, (4, 6), jnp.array([0, 7, 2, 9])),
    ],
)
def test_the_output_is_that_of_the_effective_parameters(function, shape, x):
    params = {"w": normal(*shape)}
    adapted, variables = adapted_of(function, params, x)
    singles = [adapted.apply(variables, x, task_id=task) for task in range(2)]
    for task, got in enumerate(singles):
        np.testing.assert_allclose(got, function(adapted.effective_params(variables, task), x), rtol=1e-4, atol=1e-4)
    mixed = adapted.apply(variables, x, task_id=jnp.array(IDS))
    np.testing.assert_allclose(mixed, np.stack([singles[t][i] for i, t in enumerate(IDS)]), rtol=1e-4, atol=1e-4)


def test_rows_of_each_example_stay_together():
    adapted, variables = adapted_of(lambda p, x: (x @ p["w"]).reshape(-1, 3), {"w": normal(6, 3)}, X)
    singles = [adapted.apply(variables, X, task_id=task).reshape(4, 5, 3) for task in range(2)]
    mixed = adapted.apply(variables, X, task_id=jnp.array(IDS)).reshape(4, 5, 3)
    np.testing.assert_allclose(mixed, np.stack([singles[t][i] for i, t in enumerate(IDS)]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p, x: jnp.concatenate([x @ p["w"], -x @ p["w"]]), "got 2 rows for each example, in an order"),
        (lambda p, x: (x @ p["w"]).swapaxes(0, 1).reshape(-1, 3), "got 5 rows for each example, in an order"),
        (lambda p, x: (x @ p["w"])[::-1], "got an output with the batch in another order"),
        (lambda p, x: (x @ p["w"])[jnp.argsort(x[:, 0, 0])], "got an output with the batch in another order"),
        (lambda p, x: (x @ p["w"]).reshape(2, -1), "got one that does not take one example alone"),
    ],
)
def test_a_mixed_batch_whose_outputs_are_in_another_order_is_refused(function, words):
    adapted, variables = adapted_of(function, {"w": normal(6, 3)}, X)
    adapted.apply(variables, X, task_id=1)
    with pytest.raises(InputError, match=words) as caught:
        adapted.apply(variables, X, task_id=jnp.array(IDS))
    assert "\n" not in str(caught.value)
