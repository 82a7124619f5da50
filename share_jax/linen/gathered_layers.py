"""Layers that run on other values of their own parameters, as on weights that are stored in parts and used whole."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn

from share_jax.linen.layer_spec import layer_type


def gathering_layers(layers: Collection[str], whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
    """Within it each of the layers that is a plain one runs on `whole(path, leaf)` of its parameters.

    Args:
        layers: paths of modules.
        whole: (path in `params`, leaf) to the leaf in its place.
    """
    inside: list[str] = []

    def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        path = "/".join(module.path)
        if path in inside or path not in layers or context.method_name not in ("__call__", "attend"):
            return next_fun(*args, **kwargs)
        if layer_type(module) is None:
            return next_fun(*args, **kwargs)

        def trans_in(variables: Any) -> Any:
            return {"params": {n: whole(f"{path}/{n}".strip("/"), x) for n, x in variables["params"].items()}}

        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(module, context.method_name)(*args, **kwargs)

        inside.append(path)
        try:
            return nn.map_variables(call, "params", trans_in_fn=trans_in)(module, *args, **kwargs)
        finally:
            inside.pop()

    return nn.intercept_methods(intercept)
