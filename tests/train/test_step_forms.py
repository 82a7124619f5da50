"""The train step for every kind of model, compute type and batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from step_job import CLASSES, TASKS, WIDTH, Job, bits, loss, moved, random_batch, random_tree

from share_jax import SharedLoRADense, TaskHead, adapt
from share_jax.bank.slots import read_slot
from share_jax.train.step import forward_of, make_train_step


class OwnModel(nn.Module):
    """The same computation out of modules of one's own."""

    @nn.compact
    def __call__(self, x, task_id):
        for index in range(2):
            x = x + SharedLoRADense(WIDTH, num_tasks=TASKS, name=f"layer_{index}")(nn.gelu(x), task_id)
        return TaskHead(CLASSES, num_tasks=TASKS, name="head")(x, task_id)


def test_a_model_of_ones_own_trains_as_the_adapted_one_does():
    job = Job(transform=optax.sgd(0.1))
    own = make_train_step(forward_of(OwnModel()), loss, job.optimizer(first=True), train_shared=True)
    base = {"params": {name: tree for name, tree in job.base["params"].items() if name != "head"}}
    mine, theirs = job.begin(1, first=True), job.begin(1, first=True)
    step = job.step(first=True)
    for _ in range(3):
        batch = random_batch()
        mine, own_metrics = own(mine, base, batch)
        theirs, metrics = step(theirs, job.base, batch)
        np.testing.assert_allclose(own_metrics["loss"], metrics["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mine.slot, theirs.slot)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mine.shared, theirs.shared)


def test_parameter_space_trains_as_activation_space_does():
    states = []
    batches = [random_batch() for _ in range(3)]
    job = Job(transform=optax.sgd(0.1))
    x = batches[0]["inputs"]
    other = adapt(job.model, job.base, x, targets="layer_.*kernel", heads="head/.*", space="parameter")
    for forward in (job.forward, forward_of(other)):
        step = make_train_step(forward, loss, job.optimizer(first=True), train_shared=True)
        state = job.begin(1, first=True)
        for batch in batches:
            state, _ = step(state, job.base, batch)
        states.append((state.shared, state.slot))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *states)


def test_inputs_that_are_a_dict_are_passed_by_name():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, tokens, mask):
            return nn.Dense(2)(tokens * mask)

    x, mask = jnp.ones((2, 3)), jnp.array([[1.0, 0.0, 1.0]] * 2)
    base = random_tree(jax.eval_shape(Pair().init, jax.random.key(0), x, mask))
    adapted = adapt(Pair(), base, tokens=x, mask=mask, targets=".*kernel")
    trees = random_tree(jax.eval_shape(lambda key: adapted.init(key, base["params"], 1), jax.random.key(0)))
    got = forward_of(adapted)(base, trees["shared"], read_slot(trees["tasks"], 0), {"mask": mask, "tokens": x}, None)
    np.testing.assert_allclose(got, adapted.apply({**base, **trees}, x, mask, task_id=0), rtol=1e-6)


def test_bf16_compute_keeps_float32_parameters_gradients_and_optimizer_state():
    job = Job(dtype=jnp.bfloat16)
    state = job.begin(0, first=True)
    batch = random_batch()
    assert jax.eval_shape(job.forward, job.base, state.shared, state.slot, batch["inputs"], None).dtype == jnp.bfloat16
    before = bits((state.shared, state.slot))

    def objective(slot):
        return loss(job.forward(job.base, state.shared, slot, batch["inputs"], None), batch)[0]

    grads = jax.eval_shape(jax.grad(objective), state.slot)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    step = job.step(first=True)
    for _ in range(3):
        state, metrics = step(state, job.base, batch)
    assert metrics["loss"].dtype == jnp.float32
    leaves = jax.tree.leaves((state.shared, state.slot, state.opt_state))
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {jnp.dtype("float32")}
    assert all(moved(before, (state.shared, state.slot)))


@pytest.mark.parametrize("count", [1, 5])
def test_a_padded_batch_has_the_loss_and_the_step_of_the_unpadded_one_without_recompiling(count):
    job = Job(transform=optax.sgd(0.1))
    step = job.step(first=True)
    full, part = random_batch(), random_batch(count)
    short = {name: leaf[:count] if leaf.ndim else leaf for name, leaf in part.items()}
    step(job.begin(0, first=True), job.base, full)
    padded, metrics = step(job.begin(0, first=True), job.base, part)
    assert step._cache_size() == 1
    want, want_metrics = job.step(first=True)(job.begin(0, first=True), job.base, short)
    np.testing.assert_allclose(metrics["loss"], want_metrics["loss"], rtol=1e-6)
    assert float(metrics["examples"]) == count
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), padded.slot, want.slot)
    assert float(metrics["correct"]) == float(want_metrics["correct"])


def test_an_update_is_the_gradient_of_the_plain_mean_over_the_examples_that_count():
    count, rate = 5, 0.5
    job, part = Job(transform=optax.sgd(rate)), random_batch(count)
    slot = read_slot(job.trees["tasks"], 0)

    def mean(slot):
        logits = job.forward(job.base, job.trees["shared"], slot, part["inputs"][:count], None)
        return optax.softmax_cross_entropy_with_integer_labels(logits, part["labels"][:count]).mean()

    want = jax.tree.map(lambda leaf, grad: leaf - rate * grad, slot, jax.jit(jax.grad(mean))(slot))
    state, _ = job.step(first=False)(job.begin(0, first=False), job.base, part)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.slot, want)


@pytest.mark.parametrize("first", [True, False])
def test_the_loss_falls_in_20_steps(first):
    job = Job(transform=optax.adam(1e-2))
    step, batch = job.step(first=first), random_batch()
    state = job.begin(0, first=first)
    losses = []
    for _ in range(20):
        state, metrics = step(state, job.base, batch)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
