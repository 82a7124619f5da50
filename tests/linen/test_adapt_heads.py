"""Heads: each task answers through its own, alone and in a mixed batch, or the call is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import MIXED, SEQUENCE, TASKS, Mlp, Twice, base_variables, merged_params, with_adapters

from share_jax import SharedA, adapt
from share_jax.errors import InputError

SCALE = SharedA().scale
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Classifier(nn.Module):
    head: type[nn.Module] = nn.Dense
    pooled: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(7, name="body")(x))
        return self.head(3, name="head")(x.mean(1) if self.pooled else x)


def adapted_classifier(model, **options):
    base = base_variables(model, SEQUENCE)
    adapted = adapt(model, base, SEQUENCE, **options)
    return adapted, with_adapters(adapted, base)


def check_mixed(model, adapted, variables):
    run, plain = jax.jit(lambda ids: adapted.apply(variables, SEQUENCE, task_id=ids)), jax.jit(model.apply)
    alone = [run(jnp.int32(task)) for task in range(TASKS)]
    for task, got in enumerate(alone):
        want = plain({"params": merged_params(variables, task, SCALE, adapted.heads)}, SEQUENCE)
        np.testing.assert_allclose(got, want, **CLOSE)
    mixed = run(jnp.array(MIXED))
    np.testing.assert_allclose(mixed, jnp.stack([alone[t][i] for i, t in enumerate(MIXED)]), **CLOSE)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("heads", ["head/.*", "head/kernel", "head/bias"])
def test_each_example_is_answered_by_its_own_tasks_head(heads, pooled):
    model = Classifier(pooled=pooled)
    adapted, variables = adapted_classifier(model, targets="body/kernel", heads=heads)
    check_mixed(model, adapted, variables)


def test_a_layer_may_have_an_adapted_kernel_and_a_bias_of_each_task():
    model = Classifier()
    adapted, variables = adapted_classifier(model, targets=".*/kernel", heads=".*/bias")
    check_mixed(model, adapted, variables)


def test_heads_without_any_adapter():
    model = Classifier()
    adapted, variables = adapted_classifier(model, targets=(), heads="head/.*")
    assert variables["shared"] == {}
    check_mixed(model, adapted, variables)


def test_heads_under_nn_jit():
    model = Classifier(head=nn.jit(nn.Dense))
    adapted, variables = adapted_classifier(model, targets="body/kernel", heads="head/.*")
    check_mixed(model, adapted, variables)


def test_a_model_that_is_one_dense_layer_may_be_its_own_head():
    model = nn.Dense(3)
    adapted, variables = adapted_classifier(model, targets=(), heads=".*")
    check_mixed(model, adapted, variables)


def test_fresh_heads_are_copies_of_the_base_models():
    model = Classifier()
    base = base_variables(model, SEQUENCE)
    adapted = adapt(model, base, SEQUENCE, targets="body/kernel", heads="head/.*")
    fresh = adapted.init(jax.random.key(0), base["params"], 2)
    for name in ("kernel", "bias"):
        for task in range(2):
            assert np.array_equal(fresh["tasks"]["head"][name][task], base["params"]["head"][name])


def test_the_kernel_of_a_head_is_not_adapted_as_well():
    adapted, _ = adapted_classifier(Classifier(), targets=".*kernel", heads="head/.*")
    assert [target.path for target in adapted.targets] == ["body/kernel"]


class Scaled(nn.Dense):
    """A Dense layer with a computation of its own."""

    @nn.compact
    def __call__(self, x):
        return 2 * super().__call__(x)


class Hidden(nn.Module):
    """A head behind a transform that drops what it finds in the collections of the adapter."""

    @nn.compact
    def __call__(self, x):
        heads = nn.vmap(nn.Dense, variable_axes={"params": None}, split_rngs={"params": False})
        return heads(3, name="head")(nn.Dense(7, name="body")(x))


@pytest.mark.parametrize("model", [Classifier(head=Scaled), Hidden()], ids=["not_plain", "behind_a_transform"])
def test_a_head_of_any_kind_is_each_examples_own_in_a_mixed_batch(model):
    adapted, variables = adapted_classifier(model, targets="body/kernel", heads="head/.*")
    merged = [merged_params(variables, task, SCALE, adapted.heads) for task in range(max(MIXED) + 1)]
    run, plain = jax.jit(lambda ids: adapted.apply(variables, SEQUENCE, task_id=ids)), jax.jit(model.apply)
    want = np.stack([plain({"params": merged[task]}, SEQUENCE)[i] for i, task in enumerate(MIXED)])
    np.testing.assert_allclose(run(jnp.int32(1)), plain({"params": merged[1]}, SEQUENCE), **CLOSE)
    np.testing.assert_allclose(run(jnp.array(MIXED)), want, **CLOSE)


def test_ids_per_example_in_parameter_space_are_refused():
    adapted, variables = adapted_classifier(Classifier(), targets="body/kernel", space="parameter")
    with pytest.raises(InputError, match="one id for the whole batch"):
        adapted.apply(variables, SEQUENCE, task_id=jnp.array(MIXED))


@pytest.mark.parametrize("count", [3, 5])
def test_ids_that_do_not_fit_the_batch_are_refused(count):
    model = Twice(Mlp)
    base = base_variables(model, SEQUENCE)
    adapted = adapt(model, base, SEQUENCE, targets=".*kernel")
    with pytest.raises(InputError, match="one id per example"):
        adapted.apply(with_adapters(adapted, base), SEQUENCE, task_id=np.zeros(count, np.int32))


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("heads", ["head/.*", "head/kernel", "head/bias"])
def test_ids_that_do_not_fit_the_batch_are_refused_where_only_a_head_is_adapted(heads, count):
    adapted, variables = adapted_classifier(Classifier(), targets=(), heads=heads)
    with pytest.raises(InputError, match=f"task_id: got {count} ids, expected one id per example") as caught:
        adapted.apply(variables, SEQUENCE, task_id=np.zeros(count, np.int32))
    assert "\n" not in str(caught.value)
