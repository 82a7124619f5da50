"""One `adapt` for every module system: the model's class says whose seam adapts it."""

import importlib
from collections.abc import Sequence
from typing import Any

from share_jax.errors import InputError, message
from share_jax.parameterizations.base import Parameterization

ADAPTS = {
    "flax.linen.module.Module": "share_jax.linen.adapted_model",
    "flax.nnx.module.Module": "share_jax.nnx.adapted_model",
}
"""For a module system's root class the module whose `adapt` takes its models; it is loaded when the first one comes."""

INSTEAD = {
    "flax.nnx.graphlib.GraphDef": "nnx.merge it with its state, and pass the module",
    "flax.nnx.statelib.State": "pass the module that the state belongs to",
    "transformers.modeling_flax_utils.FlaxPreTrainedModel": 'pass model.module and {"params": model.params}',
}
"""What is taken for a model, and what to pass in its place."""


def adapt(
    model: Any,
    *args: Any,
    targets: Sequence[str] | str,
    method: Parameterization | None = None,
    heads: Sequence[str] | str = (),
    space: str = "activation",
    unbatched: Sequence[str] = (),
    **kwargs: Any,
) -> Any:
    """Chooses kernels of an unmodified Flax model and checks, by one abstract evaluation, that they can be adapted.

    Args:
        model: a Linen module (`share_jax.linen.adapt`), or an NNX module (`share_jax.nnx.adapt`).
        *args: of a Linen module its variables, {"params": pretrained tree, ...}; then an example of the inputs, arrays
            or `jax.ShapeDtypeStruct`, of which only shapes are used. An NNX module has its variables.
        targets: regular expressions, each matching whole kernel paths such as r".*/ffn/kernel"; empty adapts nothing
            but the heads.
        method: the parameterisation; `SharedA()` (rank 4, alpha 8) by default.
        heads: regular expressions over all parameter paths: leaves that each task owns whole.
        space: "activation" adds to the layers' outputs (low memory, batches of different tasks); "parameter" adds to
            the kernels (any module that owns a kernel).
        unbatched: inputs that all examples of a mixed batch share, by name, or by place as "0", such as a memory. Their
            first axis may be as long as the batch.
        **kwargs: more inputs by name.

    Returns:
        An adapted model; `print` it to see what matched.

    Raises:
        TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
        InputError: if `model` is neither, `method` is not a parameterisation, or the variables are none.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model, x = nn.Sequential([nn.Dense(4), nn.gelu, nn.Dense(3)]), jnp.ones((2, 4))
        >>> variables = model.init(jax.random.key(0), x)
        >>> adapted = adapt(model, variables, x, targets="layers_0/kernel", heads="layers_2/.*")
        >>> print(adapted)
        SharedA(rank=4, alpha=8.0, init_std=0.02) in activation space on 1 kernels:
        layers_0/kernel  Dense  4 x 4
        owned by each task: layers_2/bias, layers_2/kernel
        >>> trees = adapted.init(jax.random.key(1), variables["params"], num_tasks=3)
        >>> adapted.apply({**variables, **trees}, x, task_id=jnp.array([2, 0])).shape
        (2, 3)
    """
    chosen: Any = {"targets": targets, "method": method, "heads": heads}
    options = {**chosen, "space": space, "unbatched": unbatched}
    roots = [f"{root.__module__}.{root.__qualname__}" for root in type(model).__mro__]
    for root in roots:
        if (seam := ADAPTS.get(root)) is not None:
            return importlib.import_module(seam).adapt(model, *args, **options, **kwargs)
    fix = next((INSTEAD[root] for root in roots if root in INSTEAD), None)
    if fix is None:
        fix = "use share_jax.adapt_function for a function or a module of another library"
    got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise InputError(message("model", got=got, expected="a module of flax.linen or flax.nnx", fix=fix))
