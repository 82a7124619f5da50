"""How each chosen kernel of a Linen model is adapted: at its layer's output, in the traced program, or not at all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from share_jax.errors import TargetError, message
from share_jax.layers.stored_kernel import QUANTIZED, UNREACHED, WAYS_OUT, is_quantized, no_update
from share_jax.layers.targets import Target
from share_jax.linen.bypass import bypassed
from share_jax.linen.discover import ParameterUse, may_be_kernel
from share_jax.linen.model_checks import one_line
from share_jax.traced.agreement import UNREAD, UNUSED
from share_jax.trees import keys_of
from share_jax.typing import Tree

CHANGED = "a kernel that is changed before its layer gets it"
AROUND = "a kernel that the model also reads without calling its layer"


class Call(NamedTuple):
    """The example call of a model."""

    model: nn.Module
    variables: Tree
    args: tuple
    kwargs: dict[str, Any]


def choose(
    chosen: Sequence[str],
    heads: Sequence[str],
    params: Mapping[str, Any],
    found: Mapping[str, ParameterUse],
    space: str,
    call: Call,
) -> tuple[tuple[Target, ...], frozenset[str], bool]:
    """The targets, those of them that are adapted in the program, and whether mixed batches go example by example.

    Args:
        chosen: paths of the kernels.
        heads: paths of the parameters that each task owns whole.
        params: the model's parameters by path.
        found: from `uses`.
        space: "activation" or "parameter".
        call: the example call.

    Raises:
        TargetError: if one of the kernels cannot be adapted in this space.
    """
    for path in chosen:
        reason, coded = no_update(params[path]), is_quantized(params[path])
        if reason is not None and not (coded and space == "activation"):
            fix = "narrow the pattern, or use space='activation'" if coded else "narrow the pattern"
            raise TargetError(
                message(f"target {path}", got=reason, expected="a floating kernel, which learns", fix=fix)
            )
        if path not in found:
            raise _refused(path, UNREAD, space, fix=UNREACHED)
        if found[path].program.obstacle == UNUSED:
            raise _refused(path, UNUSED, space, fix=UNREACHED)
    if space == "parameter":
        return tuple(_whole(path, params[path].shape, found[path]) for path in chosen), frozenset(), False
    at_layers = {path for path in chosen if _obstacle(found[path]) is None and not is_quantized(params[path])}
    dense = [path for path in heads if path in found and _takes_heads(found[path])]
    with one_line("example call of the model"):
        around = set(bypassed(*call, sorted({*at_layers, *(p for p in dense if may_be_kernel(params[p]))})))
    targets, traced = [], set()
    for path in chosen:
        use, shape = found[path], tuple(params[path].shape)
        if path in at_layers - around:
            targets.append(_at_layer(path, shape, use))
            continue
        program = use.program
        if program.obstacle is not None or not _holds(use):
            if is_quantized(params[path]):
                raise _refused(path, program.obstacle or CHANGED, space, fix=QUANTIZED)
            reason = AROUND if path in around else _obstacle(use) or CHANGED
            raise _refused(path, reason, space, program.obstacle)
        targets.append(_in_program(path, shape, use))
        traced.add(path)
    return tuple(targets), frozenset(traced), len(dense) < len(heads) or any(path in around for path in heads)


def _holds(use: ParameterUse) -> bool:
    """Whether the layers that stand outside the module are the outermost of those that the program takes."""
    return use.stacked is None or use.program.stacked[: len(use.stacked)] == use.stacked


def _takes_heads(use: ParameterUse) -> bool:
    """Whether a layer takes a kernel and a bias for each example."""
    own = use.stacked == () or (use.stacked is None and len(use.shape) < 2)
    return use.layer == "Dense" and use.plain and own


def _obstacle(use: ParameterUse) -> str | None:
    """Why the update cannot be added to the layer's output; None if it can."""
    if use.obstacle is not None:
        return use.obstacle
    if use.stacked is None:
        return CHANGED
    return None if use.stacked in ((), (0,)) else f"a kernel with layers stacked along axes {use.stacked}"


def _refused(path: str, reason: str, space: str, program: str | None = None, fix: str = "") -> TargetError:
    more = "" if program is None or program == reason else f" ({program})"
    fix = fix or ("narrow the pattern" if space == "parameter" else WAYS_OUT)
    expected = f"a kernel that {space} space can adapt"
    return TargetError(message(f"target {path}", got=f"{reason}{more}", expected=expected, fix=fix))


def _made(path: str, shape: tuple[int, ...], use: ParameterUse, stacked: tuple[int, ...], inputs: Any) -> Target:
    layer = [axis for axis in range(len(shape)) if axis not in stacked]
    own = tuple(shape[axis] for axis in layer)
    layers = math.prod(shape[axis] for axis in stacked) if stacked else None
    if isinstance(inputs, int):
        return Target(path, keys_of(path)[:-1], use.layer, own, inputs, layers, stacked_axes=stacked or (0,))
    at = tuple(layer.index(axis) for axis in inputs)
    leading = None if at == tuple(range(len(at))) else at
    return Target(path, keys_of(path)[:-1], use.layer, own, len(at), layers, leading, stacked or (0,))


def _at_layer(path: str, shape: tuple[int, ...], use: ParameterUse) -> Target:
    return _made(path, shape, use, use.stacked or (), use.in_axes)


def _in_program(path: str, shape: tuple[int, ...], use: ParameterUse) -> Target:
    if use.plain and use.stacked == use.program.stacked:
        return _at_layer(path, shape, use)
    return _made(path, shape, use, use.program.stacked, use.program.inputs)


def _whole(path: str, shape: tuple[int, ...], use: ParameterUse) -> Target:
    """A target of parameter space: its inputs and layers as the operations have them, where they say it.

    Raises:
        TargetError: if the axes of its layers are not known.
    """
    shape, program = tuple(shape), use.program
    if use.stacked is None and use.shape != shape and program.inputs is None:
        raise _refused(path, f"shape {shape} outside and {use.shape} inside its layer", "parameter", program.obstacle)
    stacked = program.stacked if use.stacked is None else use.stacked
    if use.plain and "batch_dims" not in (use.obstacle or ""):
        return _made(path, shape, use, stacked, use.in_axes)
    if program.inputs is not None and set(stacked) <= set(program.stacked):
        return _made(path, shape, use, program.stacked, program.inputs)
    if program.inputs is not None and not set(stacked) & set(program.inputs):
        return _made(path, shape, use, stacked, program.inputs)
    return _made(path, shape, use, stacked, len(shape) - len(stacked) - 1)
