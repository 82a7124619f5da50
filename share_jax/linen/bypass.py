"""Finds kernels that a model reads without calling the layer that owns them, where activation space would miss them."""

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from share_jax.linen.discover import abstract_call, fresh_probes
from share_jax.trees import flat, keys_of, nested
from share_jax.typing import Tree


def bypassed(
    model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any], kernels: Collection[str]
) -> tuple[str, ...]:
    """The kernels on which the model's output depends other than through calls of their layers.

    A tied output layer written as `x @ embed.embedding.T` is the usual case: nothing is called there that could be
    intercepted. The model is differentiated abstractly, with the layers' own use of their kernels held constant; a
    tangent of the output that is not zero by structure then comes from a use of another kind.

    Args:
        model: the Linen model.
        variables: as for `model.apply`.
        args: the example's positional arguments.
        kwargs: its named arguments.
        kernels: paths in `params` to ask about; each belongs to a plain layer.
    """
    if not _any_bypassed(model, variables, args, kwargs, kernels):
        return ()
    return tuple(path for path in kernels if _any_bypassed(model, variables, args, kwargs, (path,)))


def _any_bypassed(
    model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any], kernels: Collection[str]
) -> bool:
    call, arrays = abstract_call(model, variables, args, kwargs)
    layers = {keys_of(path)[:-1] for path in kernels}
    inside: list[bool] = []
    hits: list[bool] = []

    def hold(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        named = context.method_name in ("__call__", "attend")
        if inside or module.scope is None or module.path not in layers or not named:
            return next_fun(*args, **kwargs)
        constant = jax.lax.stop_gradient(dict(module.variables["params"]))
        inside.append(True)
        try:
            return module.clone(parent=None).apply({"params": constant}, *args, **kwargs, method=context.method_name)
        finally:
            inside.pop()

    @jax.custom_jvp
    def watch(x: Any) -> Any:
        return x

    def rule(primals: tuple, tangents: tuple) -> tuple:
        if not isinstance(tangents[0], SymbolicZero):
            hits.append(True)
        return primals[0], jnp.zeros_like(primals[0])

    watch.defjvp(rule, symbolic_zeros=True)

    def differentiate(params: Tree, arrays: list, probes: Tree) -> Any:
        leaves = flat(params)

        def outputs(chosen: dict[str, Any]) -> list:
            out = jax.tree.leaves(call(nested({**leaves, **chosen}), arrays, probes))
            return [watch(x) for x in out if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

        chosen = {path: leaves[path] for path in kernels}
        return jax.jvp(outputs, (chosen,), (chosen,))

    _, probes = fresh_probes(variables["params"])
    with nn.intercept_methods(hold):
        jax.eval_shape(differentiate, variables["params"], arrays, probes)
    return bool(hits)
