"""Finds out, by one abstract evaluation, which layer owns each kernel of an unmodified model and how it is used."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from share_jax.errors import TargetError
from share_jax.layers.stored_kernel import codes_of, is_quantized
from share_jax.linen.layer_spec import KERNEL_LEAF, layer_type, obstacle, own_methods, spec_of
from share_jax.linen.model_checks import one_line
from share_jax.linen.variables import SHARED, TASKS
from share_jax.traced.agreement import UNREAD, KernelUse, kernel_use, layer_axes
from share_jax.traced.discover import Reading, marked, readings
from share_jax.trees import flat, keys_of, nested, path_of
from share_jax.typing import Tree

_UNREAD = KernelUse(None, (), (), UNREAD)
NESTED = "it lies in a tree that one module keeps as a parameter"
"""Why a layer's output cannot take the update there; the program's own operations may."""


@dataclass(frozen=True)
class ParameterUse:
    """How one parameter was used in the evaluation.

    Attributes:
        layer: class of the module that owns it, as "Dense".
        shape: its shape inside the module, per layer of a scan.
        in_axes: how many leading axes are inputs, as a layer of Flax sees it.
        is_kernel: whether it is a matrix that multiplies the input, and not a bias or a scale.
        plain: whether the layer is one of Flax's own.
        obstacle: why the update cannot be added to the layer's output; None if it can.
        stacked: axes along which its layers are stacked, as its module sees it; None if the array that the module has
            is not the parameter.
        program: what the operations that read it say.
    """

    layer: str
    shape: tuple[int, ...]
    in_axes: int
    is_kernel: bool
    plain: bool
    obstacle: str | None
    stacked: tuple[int, ...] | None = None
    program: KernelUse = _UNREAD


def abstract_call(
    model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any], *, carried: bool = False
) -> tuple[Callable[[Tree, list, Tree], Any], list]:
    """`model.apply` as a function of (params, arrays among its arguments, probes), and those arrays.

    The probes lie in the collections of the adapter if they shall be `carried`, otherwise in one that no transform
    names: there they only keep a trace of another call from standing in for this one.
    """
    leaves, treedef = jax.tree.flatten((args, kwargs))
    dynamic = [isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)) for leaf in leaves]

    def call(params: Tree, arrays: list, probes: Tree) -> Any:
        values = iter(arrays)
        full = [next(values) if is_array else leaf for is_array, leaf in zip(dynamic, leaves, strict=True)]
        inner_args, inner_kwargs = jax.tree.unflatten(treedef, full)
        extra = {SHARED: probes, TASKS: probes} if carried else {"share_jax_probes": probes}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found unknown module paths", UserWarning)  # NNX's bridge, of our probes
            return model.apply({**variables, "params": params, **extra}, *inner_args, **inner_kwargs)

    return call, [leaf for leaf, is_array in zip(leaves, dynamic, strict=True) if is_array]


def fresh_probes(params: Tree) -> tuple[str, Tree]:
    """A name that no other trace has seen, and a tree with a leaf for every layer whose name starts with it."""
    probe = f"probe_{uuid4().hex}"
    owners = {keys_of(path)[:-1]: leaf for path, leaf in flat(params).items() if leaf.ndim}
    leaves = {
        path_of((*owner, f"{probe}_{index}")): jax.ShapeDtypeStruct(leaf.shape, bool)
        for index, (owner, leaf) in enumerate(owners.items())
    }
    return probe, nested(leaves)


def uses(model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any]) -> dict[str, ParameterUse]:
    """Evaluates `model.apply(variables, *args, **kwargs)` abstractly and notes who uses which kernel.

    Probes in the collections `shared` and `tasks` tell whether a lifted transform (`nn.scan`, `nn.vmap`) carries those
    collections to the layer. Their names are fresh for every call and every layer, so that a trace that `nn.jit` kept,
    from another call or from a like layer of this one, cannot stand in for a visit. Where the transform takes another
    axis of them than the probes have, nothing is carried.

    Returns:
        A `ParameterUse` by path in `params`, for every parameter that the call reached.

    Raises:
        TargetError: if the evaluation itself fails; the message carries its reason.
    """
    for carried, probing in ((True, True), (False, True)):
        try:
            return _uses(model, variables, args, kwargs, carried=carried, probing=probing)
        except TargetError:
            continue
    return _uses(model, variables, args, kwargs, carried=False, probing=False)  # as nn.SpectralNorm takes no probes


def _uses(
    model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any], *, carried: bool, probing: bool
) -> dict[str, ParameterUse]:
    probe, probes = fresh_probes(variables["params"]) if probing else ("", {})
    found: dict[str, ParameterUse] = {}
    kinds: dict[str, type] = {}

    def note(next_fun: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        out = next_fun(*args, **kwargs)
        module = context.module
        if module.scope is not None:
            own = module.variables
            probed = probing and all(
                any(key.startswith(probe) for key in own.get(name, {})) for name in (SHARED, TASKS)
            )
            for name, leaf in own.get("params", {}).items():
                if hasattr(leaf, "ndim"):
                    path = path_of((*module.path, name))
                    one_of = kinds.setdefault(path, type(module))
                    if issubclass(type(module), one_of) or issubclass(one_of, type(module)):
                        found[path] = _use(module, name, leaf, probed)
                    else:  # a scope that modules share
                        found[path] = replace(found[path], obstacle=f"it is also of {type(module).__name__}")
                    if may_be_kernel(leaf):
                        marked(codes_of(leaf), path)
        return out

    call, arrays = abstract_call(model, variables, args, kwargs, carried=carried)
    leaves = flat(variables["params"])
    paths = [path for path, leaf in leaves.items() if may_be_kernel(leaf)]

    def run(kernels: dict[str, Any], arrays: list, probes: Tree, rest: Tree) -> Any:
        return call(nested({**rest, **kernels}), arrays, probes)

    rest = {path: abstract_leaf(leaf) for path, leaf in leaves.items() if path not in paths}
    kernels = {path: abstract_leaf(leaves[path]) for path in paths}
    with nn.intercept_methods(note), one_line("example call of the model"):
        read = readings(run, kernels, arrays, probes, rest)
    for path in read.keys() & kernels.keys() - found.keys():  # as the bridge of NNX has them
        shape = tuple(leaves[path].shape)
        found[path] = ParameterUse("a tree of its own", shape, len(shape) - 1, True, False, NESTED)
    for path in found.keys() & kernels.keys():
        own = read.get(path, Reading())
        program = kernel_use(own, tuple(leaves[path].shape))
        found[path] = replace(found[path], stacked=layer_axes(own, path), program=program)
    return found


def abstract_leaf(leaf: Any) -> Any:
    """The shape and dtype of a leaf, or of the parts of a quantised one."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), leaf)


def may_be_kernel(leaf: Any) -> bool:
    """Whether a parameter of two axes or more holds floats, or the codes of quantised ones."""
    return is_quantized(leaf) or (leaf.ndim >= 2 and jnp.issubdtype(codes_of(leaf).dtype, jnp.floating))


def _use(module: nn.Module, name: str, leaf: Any, carried: bool) -> ParameterUse:
    layer = layer_type(module)
    named = next((kernel for kind, kernel in KERNEL_LEAF.items() if isinstance(module, kind)), None)
    own = next((own_methods(type(module), kind) for kind in KERNEL_LEAF if isinstance(module, kind)), ())
    is_kernel = leaf.ndim >= 2 and (name != "bias" if named is None else name == named)
    if layer is None and own:
        reason = f"it belongs to {type(module).__name__}, which has its own {', '.join(own)}"
    elif layer is None:
        reason = f"it belongs to {type(module).__name__}, which is none of Flax's Dense, DenseGeneral, Conv and Embed"
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
    shape = tuple(leaf.shape)
    return ParameterUse(type(module).__name__, shape, axes, is_kernel, layer is not None, reason)
