"""One table from the names of stored tensors to paths in Flax params: it loads weights and translates adapters.

A table says of every tensor of a PyTorch model, by its name, where it lies in the params and how its axes are turned.
An adapter of the module `bert.encoder.layer.0.output.dense` adapts its `weight`. So the same table gives the kernel
that it adapts here, `encoder/layer_0/ffn_down/kernel`, and the way back.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from share_jax.errors import TargetError, message
from share_jax.storage.untrusted import shown

Path = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """Where a stored tensor goes: its axes are put in the order `axes`, then it is given the shape of the params.

    Attributes:
        path: in the params.
        stored: shape in the file.
        shape: in the params.
        axes: the stored axes in their new order; as they are when None.
    """

    path: Path
    stored: tuple[int, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """The path, joined with "/"."""
        return "/".join(self.path)

    def to_params(self, tensor: np.ndarray) -> np.ndarray:
        """The stored tensor as the params hold it."""
        turned = tensor if self.axes is None else tensor.transpose(self.axes)
        return np.ascontiguousarray(turned).reshape(self.shape)

    def to_stored(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_params`.

        >>> leaf = Leaf(("query", "kernel"), (6, 4), (4, 2, 3), (1, 0))
        >>> tensor = np.arange(24.0).reshape(6, 4)
        >>> bool((leaf.to_stored(leaf.to_params(tensor)) == tensor).all())
        True
        """
        if self.axes is None:
            return np.ascontiguousarray(array).reshape(self.stored)
        turned = array.reshape([self.stored[axis] for axis in self.axes])
        return np.ascontiguousarray(turned.transpose(np.argsort(self.axes)))


class OfKernel(Protocol):
    """What belongs to one kernel, such as an adapter's factors."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_in, d_out)."""
        ...


T = TypeVar("T", bound=OfKernel)

Table = Mapping[str, Leaf]
"""Leaves by the stored tensor's name."""

Names = Table | Mapping[str, str] | None
"""How a user says it: a model's own table, module names by module path, or None for the paths with dots."""


def dense(path: Path, name: str, side_in: tuple[int, ...], side_out: tuple[int, ...]) -> dict[str, Leaf]:
    """A linear map as torch stores it: `name.weight` (out, in) and `name.bias` (out,)."""
    out, wide = math.prod(side_out), math.prod(side_in)
    return {
        f"{name}.weight": Leaf((*path, "kernel"), (out, wide), (*side_in, *side_out), (1, 0)),
        f"{name}.bias": Leaf((*path, "bias"), (out,), side_out),
    }


def norm(path: Path, name: str, size: int) -> dict[str, Leaf]:
    """A LayerNorm as torch stores it: `name.weight` and `name.bias` (size,)."""
    return {
        f"{name}.weight": Leaf((*path, "scale"), (size,), (size,)),
        f"{name}.bias": Leaf((*path, "bias"), (size,), (size,)),
    }


def within(table: Table, name: str, path: Path) -> dict[str, Leaf]:
    """The table of a model as part of a larger one: its tensors behind `name.`, its leaves below `path`."""
    return {f"{name}.{tensor}": replace(leaf, path=(*path, *leaf.path)) for tensor, leaf in table.items()}


def table_for(
    kernels: Mapping[str, tuple[int, int]], heads: Mapping[str, tuple[int, ...]], names: Names = None
) -> dict[str, Leaf]:
    """The table of what tasks own, as the user names it.

    Without a model's own table, a kernel is a linear module's `weight`, stored as (out, in). Other leaves keep their
    shape: `scale` and `embedding` are a `weight` too, any other keeps its name.

    Args:
        kernels: (d_in, d_out) of every adapted kernel, by path.
        heads: shape of every parameter that tasks own whole, by path.
        names: a model's own table; or the name of every module by its path, such as {"layers_0": "encoder.fc1"}; or
            None for paths with dots.

    Raises:
        TargetError: a kernel or head has no name, or a name is of a module that is neither.

    >>> list(table_for({"layers_0/kernel": (8, 4)}, {"layers_2/bias": (3,)}))
    ['layers_0.weight', 'layers_2.bias']
    """
    if names is not None and all(isinstance(value, Leaf) for value in names.values()):
        return {name: leaf for name, leaf in names.items() if isinstance(leaf, Leaf)}
    given = {path: str(name) for path, name in (names or {}).items()}
    modules = {module_path(path): None for path in (*kernels, *heads)}
    if names is not None:
        for path in (*(p for p in modules if p not in given), *(p for p in given if p not in modules)):
            got = "no name" if path in modules else "a name, though no task adapts or owns it"
            raise TargetError(message(f"module {path!r}", got=got, expected="a name for each", fix="correct names"))
    out: dict[str, Leaf] = {}
    for path, (d_in, d_out) in kernels.items():
        out[f"{_module(path, given)}.weight"] = Leaf(tuple(path.split("/")), (d_out, d_in), (d_in, d_out), (1, 0))
    for path, shape in heads.items():
        last = path.rpartition("/")[2]
        name = f"{_module(path, given)}.{'weight' if last in ('kernel', 'scale', 'embedding') else last}"
        if name in out:
            expected = "one tensor of that name"
            raise TargetError(message(f"head {path}", got=f"{name} twice", expected=expected, fix="pass a table"))
        if last == "kernel" and len(shape) != 2:
            fix = "pass names={tensor name: formats.flax_names.Leaf(...)}, which says how it is stored"
            raise TargetError(message(f"head {path}", got=f"shape {shape}", expected="(in, out)", fix=fix))
        turned = last == "kernel"
        out[name] = Leaf(tuple(path.split("/")), shape[::-1] if turned else shape, shape, (1, 0) if turned else None)
    return out


def module_path(path: str) -> str:
    """The path of the module that owns a leaf; of one layer among several that are stacked, with its index.

    >>> module_path("encoder/ffn/kernel"), module_path("layers/ffn/kernel[2]")
    ('encoder/ffn', 'layers/ffn[2]')
    """
    module, _, leaf = path.rpartition("/")
    return module + leaf[leaf.index("[") :] if "[" in leaf else module


def _module(path: str, given: Mapping[str, str]) -> str:
    module = module_path(path)
    if module in given:
        return given[module]
    name = module.replace("/", ".").replace("[", ".").replace("]", "")
    if not name:
        fix = "pass names={tensor name: formats.flax_names.Leaf(...)}"
        raise TargetError(message(f"parameter {path}", got="no module around it", expected="one", fix=fix))
    return name


def to_modules(table: Table, adapter: Mapping[str, T]) -> dict[str, T]:
    """An adapter, or a subspace's targets, by PEFT's module names, of one by kernel paths.

    Raises:
        TargetError: a kernel is not in the table, is no linear module's there, or is of another shape.
    """
    names = {leaf.place: name for name, leaf in table.items()}
    out = {}
    for path, factors in adapter.items():
        if path not in names:
            raise _unknown(f"kernel {path}", table, "leave it out of the targets, or name its module")
        out[_linear(table, names[path], factors.shape)] = factors
    return out


def to_tensors(table: Table, heads: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Heads by the names of stored tensors, of those by paths in the params.

    Raises:
        TargetError: a head is not in the table, or is of another shape.
    """
    names = {leaf.place: name for name, leaf in table.items()}
    out = {}
    for path, array in heads.items():
        if path not in names:
            raise _unknown(f"head {path}", table, "name its module")
        _check_shape(f"head {path}", array.shape, table[names[path]].shape)
        out[names[path]] = table[names[path]].to_stored(array)
    return out


def from_modules(table: Table, adapter: Mapping[str, T], targets: Collection[str]) -> dict[str, T]:
    """The inverse of `to_modules`; a target without an adapter is left out.

    Raises:
        TargetError: a module is not in the table, or what it adapts is no target.
    """
    out = {}
    for module, factors in adapter.items():
        name = f"{module}.weight"
        if name not in table:
            raise _unknown(f"module {shown(module)}", table, "pass the names of the model that the adapter is of")
        path = table[name].place
        if path not in targets:
            what, expected = f"module {shown(module)}", f"one of the {len(targets)} targets"
            raise TargetError(message(what, got=f"kernel {path}", expected=expected, fix="adapt that kernel too"))
        _linear(table, name, factors.shape)
        out[path] = factors
    return out


def from_tensors(table: Table, tensors: Mapping[str, np.ndarray], heads: Collection[str]) -> dict[str, np.ndarray]:
    """The inverse of `to_tensors`: every tensor is a head, and every head has its tensor.

    Raises:
        TargetError: a tensor is not in the table, is no head, or is of another shape; a head has none.
    """
    out = {}
    for name, tensor in tensors.items():
        what = f"tensor {shown(name)}"
        if name not in table:
            raise _unknown(what, table, "pass the names of the model that the adapter is of")
        leaf = table[name]
        if leaf.place not in heads:
            expected, fix = "a head that tasks own", f"adapt with heads=[{leaf.place!r}]"
            raise TargetError(message(what, got=f"parameter {leaf.place}", expected=expected, fix=fix))
        _check_shape(what, tensor.shape, leaf.stored)
        out[leaf.place] = leaf.to_params(tensor)
    if missing := [path for path in heads if path not in out]:
        got, fix = "no tensor of it", "save the adapter with it (modules_to_save), or adapt without that head"
        raise TargetError(message(f"head {missing[0]}", got=got, expected="one", fix=fix))
    return out


def _linear(table: Table, name: str, shape: tuple[int, int]) -> str:
    """The module whose weight a linear kernel is."""
    leaf, module = table[name], name.removesuffix(".weight")
    if module == name or len(leaf.stored) != 2 or leaf.axes != (1, 0):
        got, expected = f"{shown(name)} {leaf.stored}", "the weight (out, in) of a linear module"
        raise TargetError(message(f"kernel {leaf.place}", got=got, expected=expected, fix="leave it out"))
    _check_shape(f"module {shown(module)} (in, out)", shape, leaf.stored[::-1])
    return module


def _check_shape(what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(got) != tuple(expected):
        fix = "take an adapter of this model, or its own names"
        raise TargetError(message(what, got=tuple(got), expected=tuple(expected), fix=fix))


def _unknown(what: str, table: Table, fix: str) -> TargetError:
    expected = f"one of the table's {len(table)}, such as {shown(next(iter(table), 'none'))}"
    return TargetError(message(what, got="not in the table of names", expected=expected, fix=fix))
