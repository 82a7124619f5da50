"""How a LoRA pair lies in an adapter file: as two matrices, or as the tensors of a convolution, embedding or expert.

Everything else of the library knows pairs of matrices, `lora_a` (d_in, r) and `lora_b` (r, d_out). A form is a short
text that says how PEFT's two tensors follow from them:

- `linear`: A (r, d_in), B (d_out, r).
- `conv:c,kh,kw`: A (r, c, kh, kw), B (d_out, r, 1, 1), with d_in = c * kh * kw; one to three axes behind the channels.
- `embedding`: A (r, vocabulary) and B (dim, r), under names of their own.
- `expert:i/n`: expert i of n in one parameter. A (n * r, d_in) has them one after the other, B (d_out, r * n) takes
  turns, column by column. The layers of the experts are named `module[i]`.

Source: PEFT `tuners/lora/layer.py`, classes `Linear`, `_ConvNd`, `Embedding` and `ParamWrapper`.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from share_jax.errors import FormatError, message

LINEAR, EMBEDDING = "linear", "embedding"

_CONV = re.compile(r"conv:([0-9]{1,9}(?:,[0-9]{1,9}){1,3})")
_EXPERT = re.compile(r"expert:([0-9]{1,6})/([0-9]{1,6})")
_NUMBERED = re.compile(r"(.+)\[([0-9]{1,6})\]", re.DOTALL)


def is_form(text: object) -> bool:
    """Whether this is one of the forms.

    >>> is_form("conv:4,3,3"), is_form("expert:2/2")
    (True, False)
    """
    if not isinstance(text, str):
        return False
    expert = _EXPERT.fullmatch(text)
    if expert:
        return int(expert[1]) < int(expert[2])
    return text in (LINEAR, EMBEDDING) or _CONV.fullmatch(text) is not None


def conv_form(shape_a: tuple[int, ...]) -> str:
    """The form of a convolution whose A has this shape.

    >>> conv_form((8, 320, 3, 3))
    'conv:320,3,3'
    """
    return "conv:" + ",".join(map(str, shape_a[1:]))


def kernel_of(form: str) -> tuple[int, ...] | None:
    """The axes of A behind the rank where the form is a convolution's, else None."""
    match = _CONV.fullmatch(form)
    return tuple(map(int, match[1].split(","))) if match else None


def expert_of(form: str) -> tuple[int, int] | None:
    """(expert, how many there are) where the form is an expert's, else None."""
    match = _EXPERT.fullmatch(form)
    return (int(match[1]), int(match[2])) if match else None


def expert_form(expert: int, count: int) -> str:
    """The form of one expert's pair."""
    return f"expert:{expert}/{count}"


def expert_layer(module: str, expert: int) -> str:
    """The name of an expert's layer."""
    return f"{module}[{expert}]"


def module_of(layer: str, form: str) -> str:
    """The module, as files name it, of a layer."""
    match = _NUMBERED.fullmatch(layer) if expert_of(form) else None
    return match[1] if match else layer


def pair_shape(
    label: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...], embedding: bool = False
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """The form of a pair of stored tensors, and their shapes as matrices.

    Args:
        label: for messages.
        shape_a: of A as it is stored.
        shape_b: of B.
        embedding: whether the names are those of an embedding.

    Raises:
        FormatError: it is a convolution with groups, or B has a kernel of its own.
    """
    if len(shape_a) < 3 or len(shape_a) != len(shape_b) or embedding or 0 in shape_a + shape_b:
        return EMBEDDING if embedding else LINEAR, shape_a, shape_b
    if len(shape_a) > 5 or any(n != 1 for n in shape_b[2:]):
        fix = "only convolutions whose lora_B is pointwise are supported"
        raise FormatError(
            message(f"{label} lora_A, lora_B", got=f"{shape_a}, {shape_b}", expected="(r, c, k..), (out, r, 1..)",
                 fix=fix)
        )  # fmt: skip
    if shape_b[1] != shape_a[0] and shape_a[0] % shape_b[1] == 0:
        raise FormatError(
            message(label, got=f"a convolution with {shape_a[0] // shape_b[1]} groups", expected="one without groups",
                 fix="leave that layer out of the adapter: its update is no low-rank pair")
        )  # fmt: skip
    return conv_form(shape_a), (shape_a[0], math.prod(shape_a[1:])), shape_b[:2]


def factors_of_tensors(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`lora_a` (d_in, r) and `lora_b` (r, d_out) of the two tensors of a linear layer, convolution or embedding."""
    return a.reshape(a.shape[0], -1).T, b.reshape(b.shape[0], -1).T


def tensors_of_factors(lora_a: np.ndarray, lora_b: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray]:
    """The two tensors A and B of a pair; see `factors_of_tensors`.

    >>> [x.shape for x in tensors_of_factors(np.zeros((36, 2)), np.zeros((2, 5)), "conv:4,3,3")]
    [(2, 4, 3, 3), (5, 2, 1, 1)]
    """
    a, b = lora_a.T, lora_b.T
    kernel = kernel_of(form)
    if kernel is None:
        return a, b
    return a.reshape(a.shape[0], *kernel), b.reshape(*b.shape, *(1 for _ in kernel[1:]))


def factors_of_expert(a: np.ndarray, b: np.ndarray, expert: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """An expert's `lora_a` (d_in, r) and `lora_b` (r, d_out), of A (count * r, d_in) and B (d_out, r * count)."""
    rank = a.shape[0] // count
    return a[expert * rank : (expert + 1) * rank].T, b[:, expert::count].T


def join_experts(pairs: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """A and B of the parameter that all experts share; see `factors_of_expert`. Their ranks are equal."""
    ordered = [pairs[e] for e in sorted(pairs)]
    a = np.concatenate([lora_a.T for lora_a, _ in ordered])
    b = np.stack([lora_b.T for _, lora_b in ordered], axis=2)
    return a, b.reshape(b.shape[0], -1)
