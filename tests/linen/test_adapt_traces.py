"""Nothing stale: traces that jit keeps never answer for another adapter, another alpha, or for the base model."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import (
    SEQUENCE,
    TASKS,
    MethodJit,
    Mlp,
    SetupMethodJit,
    Twice,
    base_variables,
    merged_params,
    with_adapters,
)

from share_jax import SeparateLoRA, SharedA, adapt

ALL = ".*kernel"
JITTED = {"class": lambda: Twice(nn.jit(Mlp)), "method": MethodJit, "setup_method": SetupMethodJit}


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(want).max())))


@pytest.mark.parametrize("name", JITTED)
def test_nn_jit_keeps_no_stale_trace_between_base_and_adapters(name):
    model, x = JITTED[name](), SEQUENCE
    base = base_variables(model, x)
    unadapted = np.asarray(model.apply(base, x))  # the base model is jitted first
    few, many = SharedA(rank=2, alpha=1.0), SharedA(rank=2, alpha=8.0)
    quiet, loud = (adapt(model, base, x, targets=ALL, method=method) for method in (few, many))
    variables = with_adapters(quiet, base)
    for adapted, method, task in ((quiet, few, 0), (loud, many, 0), (quiet, few, 2), (loud, many, 1)):
        want = model.apply({"params": merged_params(variables, task, method.scale)}, x)
        assert np.abs(want - unadapted).max() > 1e-2
        close(adapted.apply(variables, x, task_id=task), want)
    mixed = loud.apply(variables, x, task_id=np.array([1, 1, 1, 1]))
    close(mixed, loud.apply(variables, x, task_id=1))
    assert np.array_equal(model.apply(base, x), unadapted)


def test_nn_jit_tells_parameterisations_and_targets_apart():
    model, x = Twice(nn.jit(Mlp)), SEQUENCE
    base = base_variables(model, x)
    some = r"JitMlp_0/.*kernel"
    for method, pattern in ((SharedA(rank=2), ALL), (SharedA(rank=2), some), (SeparateLoRA(rank=2), some)):
        adapted = adapt(model, base, x, targets=pattern, method=method)
        variables = with_adapters(adapted, base)
        want = model.apply({"params": merged_params(variables, 1, method.scale)}, x)
        close(adapted.apply(variables, x, task_id=1), want)


def test_the_adapter_that_is_given_within_one_jit_is_the_one_that_answers():
    model, x = Twice(), SEQUENCE
    base = base_variables(model, x)
    quiet, loud = (adapt(model, base, x, targets=ALL, method=SharedA(rank=2, alpha=a)) for a in (1.0, 8.0))
    variables = with_adapters(quiet, base)

    @jax.jit
    def both(variables):
        return quiet.apply(variables, x, task_id=1), loud.apply(variables, x, task_id=1), model.apply(base, x)

    for got, scale in zip(both(variables), (0.5, 4.0, 0.0), strict=True):
        close(got, model.apply({"params": merged_params(variables, 1, scale)}, x))


def test_an_interceptor_is_gone_after_the_call_and_after_an_error():
    model, x = Twice(), SEQUENCE
    base = base_variables(model, x)
    unadapted = np.asarray(model.apply(base, x))
    adapted = adapt(model, base, x, targets=ALL)
    variables = with_adapters(adapted, base)
    with pytest.raises(Exception, match="shape"):
        adapted.apply(variables, x[..., :5], task_id=0)
    assert np.array_equal(model.apply(base, x), unadapted)


@pytest.mark.parametrize("space", ["activation", "parameter"])
def test_one_compilation_serves_every_task(space):
    model, x = Twice(), SEQUENCE
    base = base_variables(model, x)
    adapted = adapt(model, base, x, targets=ALL, heads="Dense_0/bias", space=space)
    variables = with_adapters(adapted, base)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(variables, task):
        return adapted.apply(variables, x, task_id=task)

    answers = [np.asarray(run(variables, jnp.asarray(task, jnp.int32))) for task in range(TASKS)]
    assert run._cache_size() == 1
    assert not np.array_equal(answers[0], answers[1])


def test_a_static_task_id_is_seen_by_the_trace_counter():
    chex.clear_trace_counter()

    @chex.assert_max_traces(n=1)
    def run(x, task):
        return x[task]

    jitted = jax.jit(run, static_argnums=1)
    jitted(jnp.zeros(3), 0)
    with pytest.raises(AssertionError):
        jitted(jnp.zeros(3), 1)


@pytest.mark.parametrize("bad", [-1, TASKS, 99])
def test_a_traced_id_out_of_range_gives_nan_in_both_spaces_and_in_heads(bad):
    model, x = Twice(), SEQUENCE
    base = base_variables(model, x)
    for options in ({"targets": ALL}, {"targets": ALL, "space": "parameter"}, {"targets": (), "heads": "Dense_0/.*"}):
        adapted = adapt(model, base, x, **options)
        variables = with_adapters(adapted, base)
        run = jax.jit(lambda v, task, a=adapted: a.apply(v, x, task_id=task))
        assert np.isnan(run(variables, jnp.int32(bad))).all()
        assert np.isfinite(run(variables, jnp.int32(TASKS - 1))).all()
