"""The lower part of a Linen model, for `share_jax.train.prefix_cache.PrefixCache`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from share_jax.adapted import arguments
from share_jax.typing import Tree


def linen_prefix(model: nn.Module, method: str = "prefix") -> Callable[[Tree, Any], Any]:
    """A method of a Linen model as a prefix; inputs that are a dict are passed by name."""

    def run(variables: Tree, inputs: Any) -> Any:
        args, kwargs = arguments(inputs)
        return model.apply(variables, *args, **kwargs, method=method)

    return run
