"""The kernel for batches of different tasks, in Pallas' interpreter: against numpy and against the plain products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.ops.mixed_batch import Kernel, kernel_taken, mixed_kernel
from share_jax.ops.mixed_batch_pallas import mixed_update, plain_mixed

SCALE = 1.7
KERNEL = Kernel(interpret=True)
# (batch, n, d_in, d_out, rank, tasks): one block of each axis; edges of all blocks; several blocks of rows and columns.
SIZES = {"small": (5, 3, 7, 5, 4, 6), "edges": (3, 70, 130, 200, 4, 5), "blocks": (2, 530, 24, 2100, 3, 4)}


def case(size, dtype=jnp.float32, per_task=False):
    """y, x, A, B and ids: repeated, out of order, the first and the last task among them."""
    batch, n, d_in, d_out, rank, tasks = SIZES[size]
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    down = draw(*((tasks,) if per_task else ()), d_in, rank) / np.sqrt(d_in)
    ids = [tasks - 1, 0, tasks - 1, 2, 1][:batch]
    return draw(batch, n, d_out), draw(batch, n, d_in), down.astype(dtype), draw(tasks, rank, d_out), jnp.asarray(ids)


def oracle(y, x, down, up, ids):
    """In float64, one example after the other."""
    wide = lambda leaf: np.asarray(leaf.astype(jnp.float32), np.float64)  # noqa: E731
    a = lambda task: wide(down[task] if down.ndim == 3 else down)  # noqa: E731
    pairs = enumerate(np.asarray(ids))
    return np.stack([wide(y[b]) + SCALE * wide(x[b]) @ a(task) @ wide(up[task]) for b, task in pairs])


@pytest.mark.parametrize("per_task", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_float32_equals_numpy_and_the_plain_products(size, per_task):
    """Sums of at most 130 products of size one: 1e-5 is a dozen ulp of the largest."""
    args = case(size, per_task=per_task)
    got = mixed_update(*args, SCALE, KERNEL)
    np.testing.assert_allclose(got, oracle(*args), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(got, plain_mixed(*args, SCALE), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("per_task", [False, True])
def test_bfloat16_rounds_the_inner_columns_and_the_sum_alone(per_task):
    """Two roundings of 2^-9 of numbers below 16, summed over the rank: 0.1; no further off than the plain products."""
    args = case("edges", jnp.bfloat16, per_task)
    got = mixed_update(*args, SCALE, KERNEL)
    assert got.dtype == jnp.bfloat16
    off = lambda out: np.abs(np.asarray(out.astype(jnp.float32)) - oracle(*args)).max()  # noqa: E731
    assert off(got) < 0.1
    assert off(got) <= off(plain_mixed(*args, SCALE))


def test_float32_factors_serve_a_bfloat16_layer():
    y, x, down, up, ids = case("small", jnp.bfloat16)
    wide = down.astype(jnp.float32), up.astype(jnp.float32)
    got, want = mixed_update(y, x, *wide, ids, SCALE, KERNEL), mixed_update(y, x, down, up, ids, SCALE, KERNEL)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("per_task", [False, True])
def test_an_id_that_no_slot_has_gives_nan_and_touches_no_other_example(per_task):
    y, x, down, up, _ = case("small", per_task=per_task)
    got = mixed_update(y, x, down, up, jnp.array([0, -1, 5, 6, 2]), SCALE, KERNEL)
    assert np.isnan(got[jnp.array([1, 3])]).all()
    kept = jnp.array([0, 2, 4])
    want = oracle(y[kept], x[kept], down, up, [0, 5, 2])
    np.testing.assert_allclose(got[kept], want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("per_task", [False, True])
def test_gradients_are_those_of_the_plain_products(per_task):
    """Of y, x, A and B, where a task stands twice in the batch and another not at all."""
    *moving, ids = case("small", per_task=per_task)
    slopes = []
    for run in (lambda *args: mixed_update(*args, SCALE, KERNEL), lambda *args: plain_mixed(*args, SCALE)):
        objective = lambda *args, run=run: jnp.sin(run(*args, ids)).sum()  # noqa: E731
        slopes.append(jax.jit(jax.grad(objective, argnums=(0, 1, 2, 3)))(*moving))
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4), *slopes)
    assert np.abs(slopes[0][3][5]).max() > 0.1  # the last task's
    assert not np.abs(slopes[0][3][4]).any()  # a task that no example has


@pytest.mark.parametrize("per_task", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_lowers_for_a_tpu_without_a_device(dtype, per_task):
    """To a Mosaic module; what its compiler says of it is known on a device alone."""
    args, target = case("edges", dtype, per_task), "tpu_custom_call"
    allowed = [jax.export.DisabledSafetyCheck.custom_call(target)]
    run = jax.jit(lambda *args: mixed_update(*args, SCALE, Kernel()))
    found = jax.export.export(run, platforms=["tpu"], disabled_checks=allowed)(*args)
    assert target in found.mlir_module()
    assert "gather" not in found.mlir_module()


def test_it_is_taken_when_asked_for_and_never_by_default(monkeypatch):
    sizes = 4, 64, 64, jnp.float32
    assert kernel_taken(*sizes) is None
    with mixed_kernel():  # on a CPU
        assert kernel_taken(*sizes) is None
    with mixed_kernel(KERNEL):
        assert kernel_taken(*sizes) == KERNEL
        assert kernel_taken(4, 64, 64, jnp.dtype("bfloat16")) == KERNEL
        assert kernel_taken(4, 64, 64, jnp.float16) is None
        assert kernel_taken(129, 64, 64, jnp.float32) is None
        assert kernel_taken(4, 8193, 64, jnp.float32) is None
    for backend, taken in (("tpu", Kernel()), ("gpu", None)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert kernel_taken(*sizes) is None
        with mixed_kernel():
            assert kernel_taken(*sizes) == taken
