"""The logits of several heads from one pass through the model: what replay and distillation need of earlier tasks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.input.pipeline import Batch, Pipeline
from experiments.methods.plan import Extension, Scene
from share_jax.nn.trees import flat, nested
from share_jax.train.losses import LossSums
from share_jax.train.step import Forward, Loss
from share_jax.typing import PRNGKey, Tree


def one_head(scene: Scene, slot: Tree, which: int) -> dict[str, Any]:
    """The slot with one of its heads."""
    leaves = flat(slot)
    own = {path: leaves[path][which] for path in scene.heads} if scene.plan.heads == "all" else {}
    return nested(leaves | own)


def features(scene: Scene) -> Forward:
    """A forward pass that ends where the head would begin: (batch, d), what the head's layer is given."""
    layer = tuple(scene.heads[0].split("/")[:-1])

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        here = context.module.scope is not None and context.module.path == layer
        return args[0] if here and context.method_name == "__call__" else next_fun(*args, **kwargs)

    def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        with nn.intercept_methods(intercept):
            return scene.forward(base, shared, one_head(scene, slot, 0), inputs, key)

    return run


def every_head(scene: Scene) -> Forward:
    """A forward pass to the logits of every head of the slot: (batch, heads, classes)."""
    inner = features(scene)

    def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        pooled = inner(base, shared, slot, inputs, key)
        leaves = flat(slot)
        parts = {path.rpartition("/")[2]: leaves[path] for path in scene.heads}
        if scene.plan.heads != "all":
            parts = {name: leaf[None] for name, leaf in parts.items()}
        logits = jnp.einsum("bd,hdc->bhc", pooled, parts["kernel"])
        return logits + parts["bias"][None] if "bias" in parts else logits

    return run


def of_head(logits: Float[Array, "batch h c"], head: Int[Array, "..."]) -> Float[Array, "batch c"]:
    """The logits of one head, or of each example's own."""
    places = jnp.broadcast_to(head, logits.shape[:1])
    return jnp.take_along_axis(logits, places[:, None, None], axis=1)[:, 0]


class ManyHeads(Extension):
    """Training in which one batch meets several heads; batches say in "head" whose labels they carry."""

    def forward(self, scene: Scene) -> Forward:
        """The logits of every head."""
        return every_head(scene)

    def loss(self, inner: Loss) -> Loss:
        """That of each example's own head."""

        def own(logits: jax.Array, batch: Any) -> LossSums:
            return inner(of_head(logits, batch["head"]), batch)

        return own

    def batches(self, scene: Scene, pipeline: Pipeline, memory: Tree, index: int) -> Pipeline:
        """The task's batches, which all carry labels of its own head."""
        head = np.int32(scene.head_of(index))

        def with_head(batch: Batch) -> Batch:
            return {**batch, "head": head}

        return pipeline.map(with_head)
