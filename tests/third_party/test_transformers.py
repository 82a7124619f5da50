"""Flax models of transformers as they are: GPT-2, whose kernels are transposed and whose table is tied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax import adapt

transformers = pytest.importorskip("transformers", reason="make test-models installs it")
if not hasattr(transformers, "FlaxGPT2LMHeadModel"):
    pytest.skip("this transformers has no Flax models", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _ranks_may_differ():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_gpt2_has_activation_space_for_every_kernel_and_mixed_batches():
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = transformers.FlaxGPT2LMHeadModel(transformers.GPT2Config(**sizes), seed=0)
    rng, params = np.random.default_rng(0), model.params
    ids = jnp.asarray(rng.integers(0, 40, (3, 8)))
    args = (ids, jnp.ones_like(ids), jnp.broadcast_to(jnp.arange(8), (3, 8)))
    adapted = adapt(model.module, {"params": params}, *args, targets=[".*/h/.*/kernel", ".*wte/embedding"])
    assert len(adapted.targets) == 5
    trees = adapted.init(jax.random.key(0), params, 3)
    trees = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), trees)
    variables = {"params": params, **trees}
    run = jax.jit(lambda variables, task: adapted.apply(variables, *args, task_id=task).logits)
    single = [np.asarray(run(variables, jnp.int32(task))) for task in range(3)]
    for task, got in enumerate(single):
        want = model.module.apply({"params": adapted.effective_params(variables, task)}, *args).logits
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    mixed = run(variables, jnp.arange(3))
    np.testing.assert_allclose(mixed, np.stack([single[task][task] for task in range(3)]), rtol=1e-4, atol=1e-5)
