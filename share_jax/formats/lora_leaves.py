"""The leaves of JAX's LoRA libraries in a flat tree: which belong together, and which axes they have.

A is (in, r) and B (r, out). Of a kernel with heads B may be (r, heads, size). Of layers that are scanned, or stacked
otherwise, both have an axis of layers more, the first or the second: A (layers, in, r) with B (layers, r, out), or
A (in, layers, r) with B (r, layers, out). Where sizes leave both open the leaves are refused.

An output of attention has A (heads, size, r), which is (in, r) with the heads side by side. It is known by its name:
gemma's `attn_vec_einsum`, or `out` beside the `query`, `key` and `value` of Linen's attention. Any other A with several
axes of its own is refused: they may be inputs, the taps of a convolution, or experts.

Source: qwix `_src/providers/lora.py`; gemma `gemma/peft/_lora.py`; flax `nnx/nn/lora.py`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from share_jax.errors import FormatError, message
from share_jax.storage.untrusted import shown

LEAF = re.compile(r"(.+?)(?:(_lora_)|([./])lora[./]|[./]lora_)([ab])(?:[./](?:value|raw_value))?", re.DOTALL)
"""A leaf's path, with `.` or `/` between its keys: the module; whether the name is a kernel's; the side."""

_STACKS = ("layers", "layer", "blocks", "block", "h")
"""Parts of a path that hold the layers: the number of a stacked layer stands behind it."""
_WITHIN = r"\.(?:kernel|w)$"
_AROUND = r"\.lora$|\._LoRAEinsum_\d+$|(?<=\.)_LoRAEinsum_(?=[a-z])"
"""Parts of a path that are no module's: of a kernel; of `flax.nnx.LoRALinear` and gemma's wrapper of an einsum."""
BY_HAND = "share_jax.formats.save_lora_tree(OUT, tree, alpha=ALPHA, layer_axis=AXIS)"
"""The call that takes what the leaves alone do not tell."""


@dataclass(frozen=True)
class Leaves:
    """The two leaves of a pair, or of a stack of pairs.

    Attributes:
        a: name of A.
        b: name of B.
        of_kernel: whether the library scales by alpha / rank, with an alpha that is not in the tree.
        axis: of the layers, in both leaves; None where they are one pair.
        layers: how many there are; 1 where they are one pair.
    """

    a: str
    b: str
    of_kernel: bool
    axis: int | None
    layers: int


def paired_leaves(
    shapes: Mapping[str, tuple[int, ...]], label: str, layer_axis: int | None = None
) -> dict[str, Leaves]:
    """The pairs of a tree by module, named by its path with dots between.

    Args:
        shapes: of the leaves, by path; every one of them must be a pair's.
        label: for messages.
        layer_axis: of the layers, in both leaves where these have more than two axes; what their sizes tell when None.

    Raises:
        FormatError: a leaf is none of a pair, is there twice or alone, or has axes that nothing explains.
    """
    found: dict[str, dict[str, str]] = {}
    of_kernel = set()
    for key in shapes:
        match = LEAF.fullmatch(key)
        if match is None:
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got="no leaf of a pair", fix="save the pairs alone",
                     expected="lora_a (in, r) or lora_b (r, out)")
            )  # fmt: skip
        module = re.sub(_WITHIN if match[2] else _AROUND, "", match[1].replace("/", "."))
        if match[2]:
            of_kernel.add(module)
        if match[4] in found.setdefault(module, {}):
            got = f"a second leaf for {shown(module)}"
            raise FormatError(
                message(f"{label} tensor {shown(key)}", got=got, expected="one", fix="save the tree again")
            )
        found[module][match[4]] = key
    out = {}
    for module, keys in found.items():
        if set(keys) != {"a", "b"}:
            got = shown(", ".join(keys.values()))
            raise FormatError(
                message(f"{label} {shown(module)}", got=got, expected="lora_a and lora_b", fix="save it again")
            )
        a, b = keys["a"], keys["b"]
        inputs = 2 if len(shapes[a]) > len(shapes[b]) and _joins_heads(module, found) else 1
        axis = _axis_of_layers(shapes[a], shapes[b], inputs, f"{label} {shown(module)}", layer_axis)
        out[module] = Leaves(a, b, module in of_kernel, axis, 1 if axis is None else shapes[a][axis])
    return out


def _joins_heads(module: str, modules: Mapping[str, object]) -> bool:
    """Whether the inputs of a module are the heads of an attention and their sizes."""
    parent, _, last = module.rpartition(".")
    beside = (f"{parent}.{name}" if parent else name for name in ("query", "key", "value"))
    return last == "attn_vec_einsum" or (last == "out" and all(name in modules for name in beside))


def _axis_of_layers(a: tuple[int, ...], b: tuple[int, ...], inputs: int, where: str, given: int | None) -> int | None:
    """The axis of the layers in two leaves; None where they are one pair, whose A has so many axes of inputs."""
    got, fix = f"A {a} and B {b}", "save the tree again"
    if min(len(a) + 1 - inputs, len(b)) > 2 and 0 not in a + b:
        axes = [axis for axis in ((0, 1) if given is None else (given,)) if _is_pair(*_without(axis, a, b), inputs)]
        if len(axes) == 1:
            return axes[0]
        if given is not None:
            got, fix = f"{got} with the layers along axis {given}", "pass another layer_axis"
        elif axes:
            got, fix = f"{got}, whose layers may be along either axis", f"call {BY_HAND}"
    elif _is_pair(a, b, inputs):
        return None
    elif len(a) > 1 + inputs:
        got, fix = f"{got}, an A whose axes nothing tells apart", "reshape A to (in, r) and save the tree again"
    expected = "A (in, r) and B (r, out), or both with an axis of layers"
    raise FormatError(message(where, got=got, expected=expected, fix=fix))


def _without(axis: int, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of one layer's leaves; empty ones where the axis is none of theirs."""
    if not 0 <= axis < min(len(a), len(b)) or a[axis] != b[axis]:
        return (), ()
    return a[:axis] + a[axis + 1 :], b[:axis] + b[axis + 1 :]


def _is_pair(a: tuple[int, ...], b: tuple[int, ...], inputs: int) -> bool:
    return len(a) == 1 + inputs and len(b) >= 2 and a[-1] == b[0] and 0 not in a + b


def matrices(a: np.ndarray, b: np.ndarray, index: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """A (in, r) and B (r, out) of two leaves: of one layer, (axis, place), where they hold several; heads joined.

    >>> a, b = matrices(np.ones((5, 2, 3, 4)), np.ones((5, 4, 7)), (0, 1))
    >>> a.shape, b.shape
    ((6, 4), (4, 7))
    """
    if index is not None:
        a, b = (leaf.take(index[1], index[0]) for leaf in (a, b))
    return a.reshape(-1, a.shape[-1]), b.reshape(b.shape[0], -1)


def layer_name(module: str, layer: int) -> str:
    """The name of one layer of a stack: its number stands behind the part that holds the layers, or at the end.

    >>> layer_name("decoder.layers.mlp.up", 3), layer_name("stack.up", 3)
    ('decoder.layers.3.mlp.up', 'stack.up.3')
    """
    parts = module.split(".")
    at = next((i + 1 for i, part in enumerate(parts) if part in _STACKS), len(parts))
    return ".".join([*parts[:at], str(layer), *parts[at:]])


def each_layer(leaves: Mapping[str, Leaves]) -> Iterator[tuple[str, Leaves, tuple[int, int] | None]]:
    """Every pair: its module's name, its leaves, and (axis, layer) where they hold several."""
    for module, each in leaves.items():
        if each.axis is None:
            yield module, each, None
        else:
            for layer in range(each.layers):
                yield layer_name(module, layer), each, (each.axis, layer)
