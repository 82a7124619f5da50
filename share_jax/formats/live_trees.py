"""LoRA trees in memory, of JAX's libraries or restored from a checkpoint, written as PEFT folders.

Nothing here loads JAX: a tree is made of maps and lists, and its leaves are whatever becomes an array of NumPy.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.adapters.factors import Factors
from share_jax.errors import FormatError, InputError, message
from share_jax.formats.export import new_config
from share_jax.formats.lora_leaves import LEAF, each_layer, matrices, paired_leaves
from share_jax.formats.peft import write_adapter
from share_jax.formats.peft_config import is_scale
from share_jax.storage.safetensors_file import raw_of
from share_jax.storage.untrusted import publish, shown

_NAMES = {"bfloat16": "bf16", "float16": "f16"}


def save_lora_tree(
    folder: str | os.PathLike,
    tree: Any,
    *,
    alpha: float | None = None,
    layer_axis: int | None = None,
    base_model: str | None = None,
) -> tuple[str, ...]:
    """Writes the LoRA leaves of a tree as a new PEFT folder, which every command reads; returns its modules.

    Leaves that belong to no pair, such as the base model's, are left out. A module is named by its path, with dots. The
    layers of a stack become modules of their own: `layers/mlp/up` becomes `layers.0.mlp.up` and so on.

    Args:
        folder: does not exist yet.
        tree: nested maps and lists: `nnx.state(model)`, the variables of a Linen module, what Orbax restores, or one
            map of paths with `/` or `.` in them. Its pairs are `{kernel}_lora_a` (in, r) and `{kernel}_lora_b` (r, out)
            of qwix and tunix, `lora/a` and `lora/b` of gemma, `lora_a` and `lora_b` of `flax.nnx.LoRA`.
        alpha: the update is alpha / r * A @ B; without one its scale is 1. Pairs of qwix and tunix need it.
        layer_axis: of the layers, in leaves that hold several; their sizes mostly tell.
        base_model: the name of the model that it adapts.

    Raises:
        InputError: the folder exists, the alpha is needed or no number, or there are no pairs.
        FormatError: a leaf has no other half, or axes that nothing explains.

    Example:
        >>> import tempfile
        >>> tree = {"layers": {"up": {"lora_a": np.ones((3, 5, 2)), "lora_b": np.ones((3, 2, 7))}}}
        >>> with tempfile.TemporaryDirectory() as place:
        ...     save_lora_tree(place + "/style", tree)
        ('layers.0.up', 'layers.1.up', 'layers.2.up')
    """
    out = Path(os.path.abspath(folder))
    label = f"tree for {shown(out.name)}"
    if os.path.lexists(out) or not out.parent.is_dir():
        got = "something there" if os.path.lexists(out) else f"no folder {shown(out.parent)}"
        raise InputError(message(f"folder {shown(out)}", got=got, expected="a new folder", fix="name another"))
    if alpha is not None and not is_scale(alpha):
        raise InputError(message("alpha", got=shown(repr(alpha), 60), expected="a number", fix="pass that of the run"))
    arrays = {path: _unboxed(leaf) for path, leaf in _flat(tree, ()) if LEAF.fullmatch(path)}
    leaves = paired_leaves({path: tuple(map(int, np.shape(leaf))) for path, leaf in arrays.items()}, label, layer_axis)
    scaled = next((each.a for each in leaves.values() if each.of_kernel), None)
    if not leaves or (scaled is not None and alpha is None):
        got = "no pairs" if not leaves else f"{shown(scaled)} without an alpha"
        fix = "pass alpha=, that of the run" if leaves else "pass the tree that holds lora_a and lora_b"
        raise InputError(message(label, got=got, expected="pairs and what they are scaled with", fix=fix))
    factors: dict[str, Factors] = {}
    dtypes = {}
    for name, each, index in each_layer(leaves):
        if name in factors:
            got = f"a second pair for {shown(name)}"
            raise FormatError(message(f"{label} {shown(each.a)}", got=got, expected="one", fix="rename a module"))
        a, b = (_array(arrays[key], f"{label} {shown(key)}") for key in (each.a, each.b))
        a, b = matrices(a, b, index)
        factors[name] = Factors(a, b, 1.0 if alpha is None else float(alpha) / a.shape[1])
        dtypes[name] = _NAMES.get(a.dtype.name, "f32") if a.dtype == b.dtype else "f32"
    pairs = {name: (each.lora_a, each.lora_b) for name, each in factors.items()}
    with publish(out) as temp:
        write_adapter(temp, new_config(factors, (), base_model), pairs, {}, {"format": "pt"}, dtypes)
    return tuple(factors)


def _flat(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _flat(value, (*path, str(key)))
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from _flat(value, (*path, str(i)))
    else:
        yield "/".join(path), tree


_BOXES = ("get_raw_value", "unbox")
"""Methods by which Flax's variables and boxed parameters give their arrays."""


def _unboxed(leaf: Any) -> Any:
    method = next((name for name in _BOXES if hasattr(type(leaf), name)), None)
    return leaf if method is None else getattr(leaf, method)()


def _array(leaf: Any, what: str) -> np.ndarray:
    array = np.asarray(leaf)
    try:
        raw_of(array)
        kind = array.dtype.name
    except StopIteration:
        kind = "no numbers"
    if kind not in ("float64", "float32", *_NAMES):
        raise FormatError(message(what, got=kind, expected="floats", fix="convert the leaf"))
    return array
