"""Flax's linear layers as `share_jax.layers.spec` describes them, and what stands in the way of adapting one."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import flax.linen as nn

from share_jax.errors import TargetError, message
from share_jax.layers.spec import Layer, LayerSpec
from share_jax.typing import Array

KERNEL_LEAF = {nn.Dense: "kernel", nn.DenseGeneral: "kernel", nn.Conv: "kernel", nn.Embed: "embedding"}
"""The layers that can be adapted in activation space, and the name of their kernel."""


class PlainDense(nn.Dense):
    """A layer that runs inside an adapted one, which interceptors have to leave alone."""

    __no_type_check__ = True  # nn.Dense's fields have annotations that cannot be checked at run time


class PlainDenseGeneral(nn.DenseGeneral):
    """The same for nn.DenseGeneral."""

    __no_type_check__ = True


class PlainConv(nn.Conv):
    """The same for nn.Conv."""

    __no_type_check__ = True


PLAIN = (PlainConv, PlainDense, PlainDenseGeneral)
_PLAIN: dict[type, Any] = {nn.Dense: PlainDense, nn.DenseGeneral: PlainDenseGeneral, nn.Conv: PlainConv}


def layer_type(module: nn.Module) -> type[nn.Module] | None:
    """Which of Flax's linear layers computes this module's output; None if it has a computation of its own.

    A class of one's own may add methods and other defaults. One that overrides a method of the layer, as `param`, may
    compute with another kernel than its leaf.
    """
    layer = next((layer for layer in KERNEL_LEAF if isinstance(module, layer)), None)
    if layer is None or own_methods(type(module), layer):
        return None
    usual = layer.__dataclass_fields__["promote_dtype"].default
    return layer if getattr(module, "promote_dtype", usual) is usual else None


def own_methods(kind: type, layer: type[nn.Module]) -> tuple[str, ...]:
    """What a class between a module's own and a layer of Flax overrides of that layer, beside defaults of fields.

    >>> own_methods(nn.Dense, nn.Dense), own_methods(nn.jit(nn.Dense), nn.Dense)
    ((), ('__call__',))
    """
    between = kind.__mro__[: kind.__mro__.index(layer)]
    names = {name for own in between for name in vars(own) if hasattr(layer, name)}
    of_every_class = {"scope", *layer.__dataclass_fields__}
    special = ("__call__", "__getattr__", "__getattribute__")
    return tuple(sorted(n for n in names - of_every_class if not n.startswith("_") or n in special))


def spec_of(module: nn.Module) -> LayerSpec | None:
    """How a layer sees its kernel; None if it is no Dense, DenseGeneral, Conv or Embed."""
    if isinstance(module, nn.Dense):
        return LayerSpec("dense", (module.features,), dtype=module.dtype)
    if isinstance(module, nn.DenseGeneral):
        return LayerSpec("general", _several(module.features), axis=_several(module.axis), dtype=module.dtype)
    if isinstance(module, nn.Conv):
        window, groups = _several(module.kernel_size), module.feature_group_count
        return LayerSpec("conv", (module.features,), window=window, groups=groups, dtype=module.dtype)
    if isinstance(module, nn.Embed):
        return LayerSpec("embed", (module.features,), rows=module.num_embeddings, dtype=module.dtype)
    return None


def _several(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def layer_of(module: nn.Module, plain: Callable[[], Array]) -> Layer:
    """A running layer for `share_jax.layers.adapted_layer`.

    Args:
        module: a bound Dense, DenseGeneral, Conv or Embed.
        plain: runs the layer as it is.

    Raises:
        TargetError: if the layer is of another kind.
    """
    spec = spec_of(module)
    if spec is None:
        raise TargetError(
            message(
                "adapted layer",
                got=type(module).__name__,
                expected="Dense, DenseGeneral, Conv or Embed",
                fix="adapt it with space='parameter'",
            )
        )

    def convolve(kernel: Array, x: Array) -> Any:
        alike = _alike(module, features=kernel.shape[-1], use_bias=False)
        return alike.apply({"params": {"kernel": kernel}}, x)

    def on(params: dict[str, Array], x: Array) -> Any:
        return _alike(module).apply({"params": params}, x)

    return Layer(spec, dict(module.variables["params"]), plain, on, convolve)


def _alike(module: nn.Module, **other: Any) -> Any:
    """A layer with the same attributes, but for `other`, that stands alone."""
    kind = next(kind for kind in _PLAIN if isinstance(module, kind))
    same = {f.name: getattr(module, f.name) for f in fields(kind) if f.name not in ("parent", "name")}
    return _PLAIN[kind](**{**same, **other}, parent=None)


def obstacle(module: nn.Module) -> str | None:
    """What about this layer the low-rank update cannot follow in activation space; None if nothing."""
    if isinstance(module, nn.DenseGeneral) and module.batch_dims not in ((), []):
        return f"DenseGeneral with batch_dims={module.batch_dims}"
    if isinstance(module, nn.Conv) and module.mask is not None:
        return "Conv with a mask"
    for name in ("dot_general", "dot_general_cls", "conv_general_dilated", "conv_general_dilated_cls"):
        if getattr(module, name, None) is not None:
            return f"{type(module).__name__} with a {name} of its own"
    return None


def refuse_obstacle(module: nn.Module) -> None:
    """Raises where `obstacle` finds something.

    Raises:
        TargetError: naming the layer and what it has.
    """
    found = obstacle(module)
    if found is not None:
        raise TargetError(
            message(
                f"layer {'/'.join(module.path)}",
                got=found,
                expected="a kernel that is one matrix",
                fix="leave this layer out of the targets, or use space='parameter' on the unmodified model",
            )
        )
