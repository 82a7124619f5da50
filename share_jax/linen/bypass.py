"""Finds kernels that a model reads without calling the layer that owns them, where activation space would miss them."""

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
from flax.errors import FlaxError

from share_jax.layers.projected import Projected
from share_jax.linen.discover import abstract_call, abstract_leaf, fresh_probes
from share_jax.traced.discover import held, readings
from share_jax.trees import flat, keys_of, nested
from share_jax.typing import Tree


def bypassed(
    model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any], kernels: Collection[str]
) -> tuple[str, ...]:
    """The kernels on which the model's output depends other than through calls of their layers.

    A tied output layer written as `x @ embed.embedding.T` is the usual case: nothing is called there that could be
    intercepted. The model is traced with the layers' own use of their kernels held apart; what else reads a kernel, by
    whatever operation, is of another kind.

    Args:
        model: the Linen model.
        variables: as for `model.apply`.
        args: the example's positional arguments.
        kwargs: its named arguments.
        kernels: paths in `params` to ask about; each belongs to a plain layer.
    """
    if not kernels:
        return ()
    call, arrays = abstract_call(model, variables, args, kwargs)
    layers = {keys_of(path)[:-1] for path in kernels}
    inside: list[bool] = []

    def hold(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        named = context.method_name in ("__call__", "attend")
        if inside or module.scope is None or module.path not in layers or not named:
            return next_fun(*args, **kwargs)
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(x, Projected):  # both products of the layer stand in place of its input
            return x.plain
        apart = jax.tree.map(held, dict(module.variables["params"]))
        inside.append(True)
        try:
            return module.clone(parent=None).apply({"params": apart}, *args, **kwargs, method=context.method_name)
        finally:
            inside.pop()

    def run(chosen: dict[str, Any], arrays: list, probes: Tree, rest: Tree) -> Any:
        return call(nested({**rest, **chosen}), arrays, probes)

    leaves = {path: abstract_leaf(leaf) for path, leaf in flat(variables["params"]).items()}
    chosen = {path: leaves.pop(path) for path in kernels}
    _, probes = fresh_probes(variables["params"])
    with nn.intercept_methods(hold):
        try:
            found = readings(run, chosen, arrays, probes, leaves)
        except FlaxError:  # of a layer that takes no probes, as nn.SpectralNorm
            found = readings(run, chosen, arrays, {}, leaves)
    return tuple(path for path in kernels if path in found and any(use.kind != "mark" for use in found[path].uses))
