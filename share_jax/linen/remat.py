"""Rematerialisation of a model that knows nothing of it: activations are computed again in the backward pass.

A policy around the whole forward pass saves little memory, since the backward pass then holds everything at once; it
is the blocks that count: each is computed again alone, and only what passes between them is kept.
"""

import re
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from share_jax.adapted import Forward
from share_jax.errors import TargetError, message
from share_jax.ops.remat_policy import POLICIES, Remat
from share_jax.typing import PRNGKey, Tree


def rematerialised(forward: Forward, remat: Remat | None) -> Forward:
    """The same forward pass with less memory between the passes; the forward pass itself when `remat` is None.

    Args:
        forward: from `forward_of`.
        remat: what is computed again.

    Raises:
        TargetError: at the first call, if a pattern matches no module that the call runs.

    Example:
        >>> import jax.numpy as jnp
        >>> import share_jax
        >>> model, x = nn.Dense(3), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=1)
        >>> forward = rematerialised(adapted.forward(), Remat(policy="dots"))
        >>> forward(base, trees["shared"], adapted.slot(trees["tasks"], 0), x, None).shape
        (2, 3)
    """
    if remat is None:
        return forward
    policy = POLICIES[remat.policy]
    if not remat.blocks:
        return jax.checkpoint(forward, policy=policy)
    patterns = [re.compile(block) for block in remat.blocks]

    def run(base: Tree, shared: Tree, slot: Tree, inputs: Any, key: PRNGKey | None) -> Any:
        inside: list[str] = []
        seen: set[str] = set()
        matched: set[str] = set()

        def intercept(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
            path = "/".join(context.module.path)
            seen.add(path)
            if context.method_name != "__call__" or path in inside:
                return next_fun(*args, **kwargs)
            hits = {pattern.pattern for pattern in patterns if pattern.fullmatch(path)}
            if not hits:
                return next_fun(*args, **kwargs)
            matched.update(hits)
            inside.append(path)
            try:
                return _again(context.module, args, kwargs, policy)
            finally:
                inside.pop()

        with nn.intercept_methods(intercept):
            out = forward(base, shared, slot, inputs, key)
        for block in remat.blocks:
            if block not in matched:
                near = ", ".join(sorted(path for path in seen if path)[:3])
                got = f"'{block}', which matches no module"
                raise TargetError(
                    message("remat block", got=got, expected="at least one match", fix=f"paths are {near}")
                )
        return out

    return run


def _again(module: Any, args: tuple, kwargs: dict, policy: Any) -> Any:
    """Calls a module under `nn.remat`; what is not an array, such as a flag, stays static."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    dynamic = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]

    def call(module: Any, *arrays: Any) -> Any:
        rest = iter(arrays)
        full = [next(rest) if is_array else leaf for is_array, leaf in zip(dynamic, leaves, strict=True)]
        own_args, own_kwargs = jax.tree.unflatten(treedef, full)
        return module(*own_args, **own_kwargs)

    again: Any = nn.remat(call, policy=policy)
    return again(module, *(leaf for leaf, is_array in zip(leaves, dynamic, strict=True) if is_array))
