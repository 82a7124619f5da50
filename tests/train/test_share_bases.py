"""The bases of `Share` under a Learner: nothing but coefficients trains, in the first task too."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adapted_models import normal
from flax import linen as nn
from learning import two_layers

import share_jax
from share_jax.trees import flat


class OwnModule(nn.Module):
    """A layer of ours with more columns than the input has."""

    @nn.compact
    def __call__(self, x, task_id):
        layer = share_jax.ShareDense(40, num_tasks=2, method=share_jax.Share(num_basis=8, pseudo_rank=2))
        return share_jax.TaskHead(2, num_tasks=2)(nn.gelu(layer(x, task_id)), task_id)


def adapted_learner(x):
    method = share_jax.Share(num_basis=8, pseudo_rank=2)
    return two_layers(x, optax.adamw(1e-2), hidden=40, method=method, slots=2)


def own_learner(x):
    model = OwnModule()
    variables = model.init(jax.random.key(0), x, task_id=0)
    learner = share_jax.Learner(model, {"params": variables["params"]}, optax.adamw(1e-2))
    return learner, learner.start(variables)


@pytest.mark.parametrize("make", [adapted_learner, own_learner])
def test_the_first_task_trains_coefficients_and_leaves_the_bases(make) -> None:
    x = normal(30, 4)
    learner, fresh = make(x)
    batch = {"inputs": x, "labels": (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)}
    bank = learner.learn(fresh, "first", [batch] * 30)
    before, after = flat(fresh.shared), flat(bank.shared)
    for path, basis in after.items():
        np.testing.assert_array_equal(basis, before[path])
    (gram,) = [basis.T @ basis for path, basis in after.items() if path.endswith("basis_b")]
    np.testing.assert_allclose(gram, np.eye(8), atol=1e-6)
    (padded,) = [basis for path, basis in after.items() if path.endswith("basis_a")]
    assert not np.any(padded[:, 4:])
    moved = [path for path, leaf in flat(bank.tasks).items() if not np.array_equal(leaf[0], flat(fresh.tasks)[path][0])]
    assert {"coeff_a", "coeff_b"} <= {path.rpartition("/")[2] for path in moved}


def test_separate_loras_of_the_pseudo_rank_are_what_share_is_counted_against() -> None:
    x = jnp.zeros((3, 4))
    model = nn.Dense(6)
    params = model.init(jax.random.key(0), x)["params"]
    adapted = share_jax.adapt(
        model, {"params": params}, x, targets=["kernel"], method=share_jax.Share(num_basis=4, pseudo_rank=2)
    )
    counts = adapted.counts(params, adapted.init(jax.random.key(1), params, 3), tasks=3)
    assert counts.separate_per_task == 2 * (4 + 6)
