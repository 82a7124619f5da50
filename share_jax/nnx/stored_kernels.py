"""Quantised kernels of an NNX module: the variables that store one are one leaf of "params", by the kernel's path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from share_jax.layers.stored_kernel import are_codes
from share_jax.trees import text_of

Groups = Mapping[str, tuple[str, ...]]
"""For the path of each quantised kernel those of the variables that store it, its codes first."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StoredKernel:
    """The variables that store a kernel, as a tree of them that has the kernel's shape.

    Attributes:
        codes: of the kernel's own shape.
        others: such as scales, in the order of their paths.
    """

    codes: Any
    others: tuple[Any, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return tuple(self.codes.shape)

    @property
    def ndim(self) -> int:
        """Of the kernel."""
        return self.codes.ndim

    @property
    def dtype(self) -> Any:
        """Of the codes."""
        return self.codes.dtype


def stored_kernels(model: nnx.Module, params: Mapping[tuple[Any, ...], Any]) -> dict[str, tuple[str, ...]]:
    """Finds attributes of modules that are trees of variables, one of codes and all others smaller.

    Args:
        model: the module.
        params: the value of every `nnx.Param` by the keys of its path.
    """
    modules = {tuple(path) for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Pytree)}
    by_attribute: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for keys in params:
        depth = next(size for size in range(len(keys) - 1, -1, -1) if keys[:size] in modules)
        if len(keys) > depth + 1:
            by_attribute.setdefault(keys[: depth + 1], []).append(keys)
    groups = {}
    for attribute, found in by_attribute.items():
        codes = [keys for keys in found if params[keys].ndim >= 2 and are_codes(params[keys])]
        others = sorted((keys for keys in found if keys not in codes), key=str)
        if len(codes) == 1 and others and all(_smaller(params[keys], params[codes[0]]) for keys in others):
            groups[text_of(attribute)] = tuple(map(text_of, (codes[0], *others)))
    return groups


def _smaller(other: Any, codes: Any) -> bool:
    return other.size < codes.size + jnp.issubdtype(other.dtype, jnp.floating)


def grouped(leaves: Mapping[str, Any], groups: Groups) -> dict[str, Any]:
    """Leaves by path, those that store a kernel as one."""
    within = {path for paths in groups.values() for path in paths}
    kernels = {
        kernel: StoredKernel(leaves[own[0]], tuple(leaves[path] for path in own[1:])) for kernel, own in groups.items()
    }
    return {**{path: leaf for path, leaf in leaves.items() if path not in within}, **kernels}


def apart(leaves: Mapping[str, Any], groups: Groups) -> dict[str, Any]:
    """The inverse of `grouped`."""
    made = {path: leaf for path, leaf in leaves.items() if path not in groups}
    for kernel, (codes, *others) in groups.items():
        if kernel in leaves:
            made |= {codes: leaves[kernel].codes, **dict(zip(others, leaves[kernel].others, strict=True))}
    return made
