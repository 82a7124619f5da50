"""Finds out, by one abstract evaluation, which layer owns each kernel of an unmodified model and how it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from share_jax.errors import TargetError, message
from share_jax.linen.layer_spec import KERNEL_LEAF, layer_type, obstacle, spec_of
from share_jax.linen.variables import SHARED, TASKS
from share_jax.trees import flat, nested
from share_jax.typing import Tree


@dataclass(frozen=True)
class ParameterUse:
    """How one parameter was used in the evaluation.

    Attributes:
        layer: class of the module that owns it, as "Dense".
        shape: its shape inside the module, per layer of a scan.
        in_axes: how many leading axes are inputs.
        is_kernel: whether it is a matrix that multiplies the input, and not a bias or a scale.
        obstacle: why activation space cannot adapt it; None if it can.
        parameter_obstacle: why parameter space cannot.
    """

    layer: str
    shape: tuple[int, ...]
    in_axes: int
    is_kernel: bool
    obstacle: str | None
    parameter_obstacle: str | None


def abstract_call(
    model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any]
) -> tuple[Callable[[Tree, list, Tree], Any], list]:
    """`model.apply` as a function of (params, arrays among its arguments, probes), and those arrays."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    dynamic = [isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)) for leaf in leaves]

    def call(params: Tree, arrays: list, probes: Tree) -> Any:
        values = iter(arrays)
        full = [next(values) if is_array else leaf for is_array, leaf in zip(dynamic, leaves, strict=True)]
        inner_args, inner_kwargs = jax.tree.unflatten(treedef, full)
        collections = {**variables, "params": params, SHARED: probes, TASKS: probes}
        return model.apply(collections, *inner_args, **inner_kwargs)

    return call, [leaf for leaf, is_array in zip(leaves, dynamic, strict=True) if is_array]


def fresh_probes(params: Tree) -> tuple[str, Tree]:
    """A name that no other trace has seen, and a tree with a leaf for every layer whose name starts with it."""
    probe = f"probe_{uuid4().hex}"
    owners = {path.rpartition("/")[0]: leaf for path, leaf in flat(params).items() if leaf.ndim}
    leaves = {
        f"{owner}/{probe}_{index}".strip("/"): jax.ShapeDtypeStruct(leaf.shape, bool)
        for index, (owner, leaf) in enumerate(owners.items())
    }
    return probe, nested(leaves)


def uses(model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any]) -> dict[str, ParameterUse]:
    """Evaluates `model.apply(variables, *args, **kwargs)` abstractly and notes who uses which kernel.

    Probes in the collections `shared` and `tasks` tell whether a lifted transform (`nn.scan`, `nn.vmap`) carries those
    collections to the layer. Their names are fresh for every call and every layer, so that a trace that `nn.jit` kept,
    from another call or from a like layer of this one, cannot stand in for a visit.

    Returns:
        A `ParameterUse` by path in `params`, for every parameter that the call reached.

    Raises:
        TargetError: if the evaluation itself fails; the message carries its reason.
    """
    probe, probes = fresh_probes(variables["params"])
    found: dict[str, ParameterUse] = {}

    def note(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        out = next_fun(*args, **kwargs)
        module = context.module
        if module.scope is not None:
            own = module.variables
            carried = all(any(key.startswith(probe) for key in own.get(name, {})) for name in (SHARED, TASKS))
            for name, leaf in own.get("params", {}).items():
                if hasattr(leaf, "ndim"):
                    found["/".join((*module.path, name))] = _use(module, name, leaf, carried)
        return out

    call, arrays = abstract_call(model, variables, args, kwargs)
    with nn.intercept_methods(note):
        try:
            jax.eval_shape(call, variables["params"], arrays, probes)
        except (TypeError, ValueError, LookupError, FlaxError) as error:
            raise TargetError(
                message(
                    "example call of the model",
                    got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                    expected="the arguments that model.apply takes",
                    fix="pass the same arguments to adapt as to model.apply",
                )
            ) from error
    return found


def _use(module: nn.Module, name: str, leaf: Any, carried: bool) -> ParameterUse:
    layer = layer_type(module)
    named = next((kernel for kind, kernel in KERNEL_LEAF.items() if isinstance(module, kind)), None)
    is_kernel = leaf.ndim >= 2 and (name != "bias" if named is None else name == named)
    if layer is None:
        reason = f"it belongs to {type(module).__name__}, which is not a plain Dense, DenseGeneral, Conv or Embed"
    elif not carried:
        reason = (
            "a lifted transform (nn.scan, nn.vmap) around it does not carry the collections; "
            f"add '{SHARED}' and '{TASKS}' wherever it names 'params', "
            f"as in variable_axes={{'params': 0, '{SHARED}': 0, '{TASKS}': 0}}"
        )
    else:
        reason = obstacle(module)
    spec = spec_of(module)
    axes = leaf.ndim - 1 if spec is None else spec.input_axes(leaf.ndim)
    of_shape = obstacle(module) if isinstance(module, nn.DenseGeneral) else None
    return ParameterUse(type(module).__name__, tuple(jnp.shape(leaf)), axes, is_kernel, reason, of_shape)
