"""The logits of several heads from one pass through the model: what replay and distillation need of earlier tasks."""

from posixpath import commonpath
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.algorithms.job import example_of
from experiments.algorithms.plan import Extension, MethodContext
from experiments.data.pipeline import Batch, Pipeline
from share_jax.errors import InputError, message
from share_jax.train.losses import LossSums
from share_jax.train.step import Forward, Loss
from share_jax.trees import at, flat, nested
from share_jax.typing import PRNGKey, Tree


def one_head(scene: MethodContext, slot: Tree, which: int) -> dict[str, Any]:
    """The slot with one of its heads."""
    leaves = flat(slot)
    own = {path: leaves[path][which] for path in scene.heads} if scene.plan.heads == "all" else {}
    return nested(leaves | own)


def head_path(scene: MethodContext) -> tuple[str, ...]:
    """Path of the smallest module that has all of the head's leaves.

    Raises:
        InputError: they are in no one module but the model.
    """
    layers = sorted({path.rpartition("/")[0] for path in scene.heads})
    if path := commonpath(layers):
        return tuple(path.split("/"))
    got, fix = ", ".join(layers), "give the model one module for its head"
    raise InputError(message(f"modules of the head, for {scene.job.name}", got=got, expected="one", fix=fix))


def head_module(scene: MethodContext) -> nn.Module:
    """The model's head, to be applied to parameters of any task.

    Raises:
        InputError: the head is no one module, or one that the model does not call.
    """
    path, found = head_path(scene), []

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if _called(context, path):
            found.append(context.module.unbind()[0])
        return next_fun(*args, **kwargs)

    job = scene.job
    example: dict[str, Any] = example_of(job)
    with nn.intercept_methods(intercept):
        jax.eval_shape(lambda params: job.backbone.model.apply({"params": params}, **example), job.backbone.params)
    if found:
        return found[0]
    got, fix = f"{'/'.join(path)}, which is not called", "give the model one module for its head"
    raise InputError(message(f"head, for {job.name}", got=got, expected="a module that is", fix=fix))


def _called(context: nn.module.InterceptorContext, path: tuple[str, ...]) -> bool:
    module = context.module
    return module.scope is not None and module.path == path and context.method_name == "__call__"


def features(scene: MethodContext) -> Forward:
    """A forward pass that ends where the head would begin: (batch, d), what the head's module is given."""
    path = head_path(scene)

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        return args[0] if _called(context, path) else next_fun(*args, **kwargs)

    def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        with nn.intercept_methods(intercept):
            return scene.forward(base, shared, one_head(scene, slot, 0), inputs, key)

    return run


def every_head(scene: MethodContext) -> Forward:
    """A forward pass to the logits of every head of the slot: (batch, heads, classes)."""
    inner, module, place = features(scene), head_module(scene), head_path(scene)
    names = {path: path.removeprefix("/".join(place) + "/") for path in scene.heads}
    linear = type(module) is nn.Dense and set(names.values()) == set(flat(at(scene.job.backbone.params, place)))

    def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        pooled = inner(base, shared, slot, inputs, key)
        leaves = flat(slot)
        parts = {name: leaves[path] for path, name in names.items()}
        if scene.plan.heads != "all":
            parts = {name: leaf[None] for name, leaf in parts.items()}
        if linear:  # all heads in one product
            logits = jnp.einsum("bd,hdc->bhc", pooled, parts["kernel"])
            return logits + parts["bias"][None] if "bias" in parts else logits
        rest = flat(at(base["params"], place))

        def logits_of(own: dict[str, Any]) -> Any:
            return module.apply({"params": nested(rest | own)}, pooled)

        return jax.vmap(logits_of, out_axes=1)(parts)

    return run


def of_head(logits: Float[Array, "batch h c"], head: Int[Array, "..."]) -> Float[Array, "batch c"]:
    """The logits of one head, or of each example's own."""
    places = jnp.broadcast_to(head, logits.shape[:1])
    return jnp.take_along_axis(logits, places[:, None, None], axis=1)[:, 0]


class ManyHeads(Extension):
    """Training in which one batch meets several heads; batches say in "head" whose labels they carry."""

    def forward(self, scene: MethodContext) -> Forward:
        """The logits of every head."""
        return every_head(scene)

    def loss(self, inner: Loss) -> Loss:
        """That of each example's own head."""

        def own(logits: jax.Array, batch: Any) -> LossSums:
            return inner(of_head(logits, batch["head"]), batch)

        return own

    def batches(self, scene: MethodContext, pipeline: Pipeline, memory: Tree, index: int) -> Pipeline:
        """The task's batches, which all carry labels of its own head."""
        head = np.int32(scene.head_of(index))

        def with_head(batch: Batch) -> Batch:
            return {**batch, "head": head}

        return pipeline.map(with_head)
