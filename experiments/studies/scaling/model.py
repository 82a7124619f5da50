"""An abstract decoder of any size, and its train steps lowered for a mesh without a single weight in memory."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.studies.scaling.hlo import traffic
from share_jax.bank.slots import gather
from share_jax.linen.adapted_model import adapt
from share_jax.linen.remat import rematerialised
from share_jax.ops.products import without_merging
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.parameterizations.shared_a import SharedA
from share_jax.sharding.compiled_memory import memory_of
from share_jax.sharding.gathered_weights import gathering
from share_jax.sharding.layout import Layout, layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.train.losses import LossSums, inverse
from share_jax.train.optimizer import task_optimizer
from share_jax.train.step import StepState, forward_of, make_train_step
from share_jax.trees import abstract
from share_jax.typing import Array

TARGETS = r"layers/(query|value)/kernel"


@dataclass(frozen=True)
class Size:
    """A decoder: `layers` blocks of width `width`, a gated perceptron of width `inner`, and a vocabulary."""

    name: str
    width: int
    inner: int
    layers: int
    heads: int
    vocabulary: int = 32_000


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 512, 1024, 2, 8, 1024),
        Size("110M", 768, 2048, 12, 12),
        Size("1.3B", 2048, 5504, 24, 16),
        Size("6.7B", 4096, 11008, 32, 32),
    )
}


def parameters(size: Size) -> int:
    """Weights of the whole model."""
    ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    tree = jax.eval_shape(Decoder(size).init, jax.random.key(0), ids)
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


class Block(nn.Module):
    """Causal attention and a gated perceptron, each after a norm and with a residual."""

    size: Size

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(batch, n, width) to the same."""
        s = self.size
        h = nn.RMSNorm(name="attention_norm")(x)
        split = (*x.shape[:2], s.heads, s.width // s.heads)
        q, k, v = (nn.Dense(s.width, False, name=n)(h).reshape(split) for n in ("query", "key", "value"))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        x = x + nn.Dense(s.width, False, name="out")(mixed)
        h = nn.RMSNorm(name="ffn_norm")(x)
        gate = nn.silu(nn.Dense(s.inner, False, name="gate")(h)) * nn.Dense(s.inner, False, name="up")(h)
        return x + nn.Dense(s.width, False, name="down")(gate)


class Decoder(nn.Module):
    """Token ids (batch, n) to logits (batch, n, vocabulary); the blocks are one scan."""

    size: Size

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        """Runs the model."""
        s = self.size
        x = nn.Embed(s.vocabulary, s.width, name="embed")(ids)
        stack = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0, "shared": 0, "tasks": 0},
            split_rngs={"params": True},
            length=s.layers,
        )
        x, _ = stack(Block(s, name="layers"), x, None)
        return nn.Dense(s.vocabulary, False, name="unembed")(nn.RMSNorm(name="norm")(x))


def token_loss(logits: Array, batch: Any) -> LossSums:
    """Cross entropy of the next token, summed over all of them."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), batch["labels"])
    return LossSums(jnp.sum(losses), jnp.float32(losses.size), {})


def method_of(form: str, rank: int) -> Parameterization:
    """The parameterisation of a form of `FORMS`, its columns in proportion to `rank`."""
    if form.startswith("shared_a"):
        return SharedA(rank)
    if form == "share, temporary directions":
        return ShareAdapt(phi=rank, pseudo_rank=4)
    if form == "share, coefficients":
        return Share(num_basis=4 * rank, pseudo_rank=4)
    return SeparateLoRA(rank)


FORMS = ("shared_a, first task", "shared_a, later task", "share, temporary directions", "share, coefficients")
FORMS = (*FORMS, "separate LoRA")
FULL = "full fine-tune"


def _sharded(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _batch(layout: Layout, examples: int, tokens: int) -> Any:
    ids = jax.ShapeDtypeStruct((examples, tokens), jnp.int32)
    batch = {"inputs": ids, "labels": ids}
    return _sharded(batch, layout.batch(batch))


@without_merging()  # the virtual devices stand for accelerators
def lowered(size: Size, form: str, shape: MeshShape, *, rank: int, examples: int, tokens: int, slots: int = 0) -> Any:
    """A compiled train step; blocks are computed again in the backward pass.

    Args:
        size: of the model.
        form: one of `FORMS`, or `FULL`.
        shape: the mesh.
        rank: columns of the adapter.
        examples: in the global batch.
        tokens: in each example.
        slots: with any, the step takes the stack of so many tasks, lifts one slot, trains it and puts it back.
    """
    model = Decoder(size)
    ids = jax.ShapeDtypeStruct((examples, tokens), jnp.int32)
    base = jax.eval_shape(model.init, jax.random.key(0), ids)
    adapted = adapt(model, base, ids, targets=TARGETS, method=method_of(form, rank))
    layout = layout_of(make_mesh(shape), base["params"], adapted)
    placed, batch = _sharded(base, layout.base(base)), _batch(layout, examples, tokens)
    forward = forward_of(adapted, Remat("nothing", ("layers",)))
    if form == FULL:
        return _full(forward_of_base(model), placed, layout, batch)
    first = form.endswith("first task")
    optimizer = task_optimizer(optax.adamw(1e-3), train_shared=first)
    trees = jax.eval_shape(lambda key: adapted.init(key, base["params"], max(slots, 1)), jax.random.key(0))
    slot = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), trees["tasks"])
    trained = {"shared": trees["shared"], "slot": slot}
    counter: Any = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = StepState(trees["shared"], slot, jax.eval_shape(optimizer.init, trained), counter, key)
    state = _sharded(state, layout.state(state))
    step = make_train_step(forward, token_loss, optimizer, train_shared=first, layout=layout)
    if not slots:
        return step.lower(state, placed, batch).compile()
    stack = _sharded(trees["tasks"], layout.tasks(trees["tasks"]))

    def with_stack(stack: Any, task: Array, state: StepState, base: Any, batch: Any) -> Any:
        after, metrics = step(state._replace(slot=gather(stack, task)), base, batch)
        stack = jax.tree.map(lambda leaf, new: leaf.at[task].set(new), stack, after.slot)
        return jax.lax.with_sharding_constraint(stack, layout.tasks(stack)), after, metrics

    return jax.jit(with_stack, donate_argnums=(0, 2)).lower(stack, counter, state, placed, batch).compile()


def forward_of_base(model: nn.Module) -> Any:
    """The unadapted model as a `Forward` that reads nothing but `params`."""

    def plain(base: Any, shared: Any, slot: Any, inputs: Any, key: Any) -> Any:
        return model.apply({"params": base["params"]}, inputs)

    return rematerialised(plain, Remat("nothing", ("layers",)))


def _full(forward: Any, base: Any, layout: Layout, batch: Any) -> Any:
    """AdamW on every weight, sharded as the frozen base is, with the same gathering and rematerialisation."""
    optimizer = optax.adamw(1e-3)
    run = gathering(forward, layout)

    def objective(params: Any, batch: Any) -> Array:
        sums = token_loss(run({"params": params}, {}, {}, batch["inputs"], None), batch)
        return sums.total * inverse(sums.weight)

    def step(params: Any, moments: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(objective)(params, batch)
        where = layout.base({"params": params})["params"]
        grads = jax.lax.with_sharding_constraint(grads, where)
        updates, moments = optimizer.update(grads, moments, params)
        return jax.lax.with_sharding_constraint(optax.apply_updates(params, updates), where), moments, loss

    params = base["params"]
    moments = jax.eval_shape(optimizer.init, abstract(params))
    where = jax.tree_util.tree_flatten_with_path(layout.base({"params": params})["params"])[0]

    def of(path: tuple, leaf: Any) -> Any:
        ends = [sharding for own, sharding in where if path[-len(own) :] == own]
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=ends[0] if ends else layout.named())

    moments = jax.tree_util.tree_map_with_path(of, moments)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, moments, batch).compile()


def account(size: Size, form: str, shape: MeshShape, *, rank: int, examples: int, tokens: int, slots: int = 0) -> dict:
    """Bytes that each device sends and holds in one step.

    Returns:
        "sent": by kind; "arguments" and "temporaries": bytes on each device.
    """
    compiled = lowered(size, form, shape, rank=rank, examples=examples, tokens=tokens, slots=slots)
    memory = memory_of(compiled)
    return {
        "sent": traffic(compiled.as_text(), shape.devices),
        "arguments": memory.arguments if memory else None,
        "temporaries": memory.temporaries if memory else None,
    }
