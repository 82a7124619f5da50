"""The lower part of a Linen model, for `share_jax.train.prefix_cache.PrefixCache`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from share_jax.adapted import arguments
from share_jax.typing import Tree


def linen_prefix(model: nn.Module, method: str = "prefix") -> Callable[[Tree, Any], Any]:
    """A method of a Linen model as a prefix; inputs that are a dict are passed by name.

    Args:
        model: the Linen model.
        method: name of its method that computes the lower part.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> class Tower(nn.Module):
        ...     def setup(self):
        ...         self.lower, self.upper = nn.Dense(3), nn.Dense(3)
        ...     def __call__(self, x):
        ...         return self.upper(self.prefix(x))
        ...     def prefix(self, x):
        ...         return self.lower(x)
        >>> model, x = Tower(), jnp.ones((2, 4))
        >>> variables = model.init(jax.random.key(0), x)
        >>> linen_prefix(model)(variables, x).shape  # such as PrefixCache(linen_prefix(model), variables) keeps
        (2, 3)
    """

    def run(variables: Tree, inputs: Any) -> Any:
        args, kwargs = arguments(inputs)
        return model.apply(variables, *args, **kwargs, method=method)

    return run
