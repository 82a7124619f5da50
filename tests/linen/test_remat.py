"""Rematerialisation and microbatches: the same gradients with less memory, by the compiler's own account."""

from functools import cache

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from parallel_job import ParallelJob, close, random_batch, random_tree

from share_jax import adapt
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError, TargetError
from share_jax.ops.remat_policy import Remat
from share_jax.sharding.compiled_memory import memory_of
from share_jax.train.losses import classification
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import forward_of, init_state, make_train_step

WIDTH, LAYERS, BATCH = 16, 4, 64


class Block(nn.Module):
    """A wide perceptron with dropout and a flag, as many blocks have."""

    @nn.compact
    def __call__(self, x, deterministic: bool):
        h = nn.gelu(nn.Dense(8 * WIDTH, name="up")(x))
        return x + nn.Dense(WIDTH, name="down")(nn.Dropout(0.1)(h, deterministic=deterministic))


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        for index in range(LAYERS):
            x = Block(name=f"layer_{index}")(x, not self.has_rng("dropout"))
        return nn.Dense(3, name="head")(x)


class Scanned(nn.Module):
    """The same blocks as one scan."""

    @nn.compact
    def __call__(self, x):
        stack = nn.scan(
            lambda block, x, _: (block(x, True), None),
            variable_axes={"params": 0, "shared": 0, "tasks": 0},
            split_rngs={"params": True},
            length=LAYERS,
        )
        x, _ = stack(Block(name="layers"), x, None)
        return nn.Dense(3, name="head")(x)


@cache
def run(model, remat, accumulate=1):
    """The gradients, and the memory of the compiled step."""
    rng = np.random.default_rng(3)
    batch = {"inputs": rng.standard_normal((BATCH, WIDTH)).astype(np.float32), "labels": np.zeros(BATCH, np.int32)}
    base = random_tree(jax.eval_shape(model.init, jax.random.key(0), batch["inputs"]))
    adapted = adapt(model, base, batch["inputs"], targets=".*(up|down)/kernel", heads="head/.*")
    trees = random_tree(jax.eval_shape(lambda key: adapted.init(key, base["params"], 1), jax.random.key(0)), 1)
    optimizer = task_optimizer(optax.sgd(1.0), adapted.heads, train_shared=True)
    step = make_train_step(
        forward_of(adapted, remat), classification, optimizer, train_shared=True, accumulate=accumulate
    )
    state = init_state(trees["shared"], read_slot(trees["tasks"], 0), optimizer, jax.random.key(7))
    compiled = step.lower(state, base, batch).compile()
    kept = kept_between_the_passes(forward_of(adapted, remat), base, state, batch)
    state, metrics = compiled(state, base, batch)
    return (jax.device_get((state.shared, state.slot)), metrics["loss"]), memory_of(compiled), kept


def kept_between_the_passes(forward, base, state, batch):
    """Bytes that the backward pass needs of the forward pass."""

    def residuals(shared, slot):
        return jax.vjp(lambda a, b: forward(base, a, b, batch["inputs"], jax.random.key(1)), shared, slot)[1]

    return sum(leaf.size * 4 for leaf in jax.tree.leaves(jax.eval_shape(residuals, state.shared, state.slot)))


def test_blocks_of_a_scan_computed_again_need_less_temporary_memory_by_the_compilers_account():
    want, plain, held = run(Scanned(), None)
    got, less, kept = run(Scanned(), Remat("nothing", ("layers",)))
    close(got, want)
    assert less.temporaries < 0.8 * plain.temporaries
    assert less.arguments == plain.arguments
    assert less.total < plain.total
    assert kept < 0.5 * held


def test_unrolled_blocks_computed_again_keep_less_between_the_passes():
    """XLA's CPU backend merges what is computed twice, so here only what is kept tells. Dropout is drawn twice, and
    must be the same both times.
    """
    want, _, held = run(Deep(), None)
    got, _, kept = run(Deep(), Remat("nothing", (r"layer_\d",)))
    close(got, want)
    assert kept < 0.5 * held


def test_a_policy_around_the_whole_forward_pass_gives_the_same_gradients():
    want, _, _ = run(Deep(), None)
    close(run(Deep(), Remat("dots"))[0], want)


def test_microbatches_need_less_temporary_memory():
    want, plain, _ = run(Scanned(), None)
    got, less, _ = run(Scanned(), None, accumulate=8)
    close(got, want)
    assert less.temporaries < 0.5 * plain.temporaries


def test_unknown_policies_and_blocks_are_refused_in_one_line():
    with pytest.raises(InputError, match="remat policy: got 'all', expected one of nothing, dots"):
        Remat("all")
    with pytest.raises(TargetError, match=r"remat block: got 'layers_\\.', which matches no module"):
        run(Deep(), Remat("nothing", (r"layers_\.",)))


def test_memory_counts_the_arguments_on_each_device():
    job = ParallelJob()
    state, batch = job.init_state(), random_batch()
    memory = memory_of(make_train_step(*job.parts, train_shared=True).lower(state, job.base, batch).compile())
    unread = job.base["params"]["head"]  # the task has its own
    arrays = (state._replace(key=jax.random.key_data(state.key)), job.base, batch)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) - sum(leaf.nbytes for leaf in jax.tree.leaves(unread))
    assert memory.arguments == held
    assert memory.aliased > 0
    assert memory.total > memory.arguments
