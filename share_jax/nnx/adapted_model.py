"""Adapting an unmodified NNX module: it is handed over as a function of its variables."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

from share_jax.adapted import SHARED, TASKS
from share_jax.errors import InputError, message
from share_jax.nnx.module_function import function_of
from share_jax.parameterizations.base import Parameterization
from share_jax.traced.adapted_function import AdaptedFunction, choose


def adapt(
    model: nnx.Module,
    *args: Any,
    targets: Sequence[str] | str,
    method: Parameterization | None = None,
    heads: Sequence[str] | str = (),
    space: str = "activation",
    unbatched: Sequence[str] = (),
    **kwargs: Any,
) -> AdaptedFunction:
    r"""Chooses kernels of an unmodified NNX module and checks, by one abstract evaluation, that they can be adapted.

    The module's call is traced: its products, convolutions and lookups say which axes of a kernel are inputs, and the
    update is added there, whatever the classes of its layers. A parameter that two layers share is one kernel.

    Args:
        model: any NNX module, with arrays or as `nnx.eval_shape` makes it. It is not changed.
        *args: an example of its inputs, arrays or `jax.ShapeDtypeStruct`; only shapes are used.
        targets: regular expressions, each matching whole kernel paths such as r"blocks/\d+/ffn/kernel"; empty adapts
            nothing but the heads.
        method: the parameterisation; `SharedA()` (rank 4, alpha 8) by default.
        heads: regular expressions over all parameter paths: leaves that each task owns whole.
        space: "activation" adds at the operations (low memory, batches of different tasks); "parameter" adds to the
            kernels.
        unbatched: inputs that all examples of a mixed batch share, by name, or by place as "0". Their first axis may
            be as long as the batch.
        **kwargs: more inputs, by name.

    Returns:
        An `AdaptedFunction`; `print` it to see what matched. Its `variables(model)` are the base of a `Learner`.

    Raises:
        TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
        InputError: if `model` is no NNX module or cannot be split, or `method` is not a parameterisation.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model, x = nnx.Linear(4, 3, rngs=nnx.Rngs(0)), jnp.ones((2, 4))
        >>> adapted = adapt(model, x, targets="kernel")
        >>> print(adapted)
        SharedA(rank=4, alpha=8.0, init_std=0.02) in activation space on 1 kernels:
        kernel  ...  4 x 3
        >>> base = adapted.variables(model)
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=3)
        >>> adapted.apply({**base, **trees}, x, task_id=jnp.array([2, 0])).shape
        (2, 3)
    """
    if not isinstance(model, nnx.Module):
        fix = "pass the module itself; share_jax.adapt takes Linen modules, too"
        raise InputError(message("model", got=type(model).__name__, expected="an nnx.Module", fix=fix))
    function = function_of(model)
    if any(place[0] in (SHARED, TASKS) for place in function.places.values()):
        got, fix = f"{function.name} with layers of share_jax in it", "pass it to Learner as it is"
        raise InputError(message("model", got=got, expected="an unmodified module", fix=fix))
    chosen = {"targets": targets, "method": method, "heads": heads, "space": space, "unbatched": unbatched}
    return choose(function, function.variables(model), args, kwargs, **chosen)
